"""The Docker client and engine of this machine: found by asking, not by name.

Several clients may be installed, and the first on ``PATH`` need not be able to build: since
Docker 23 the client needs the buildx plug-in for BuildKit, while older ones bring it along.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from byoc.errors import EngineError

#: The first client whose own BuildKit is gone: it needs the buildx plug-in.
BUILDX_SINCE = (23, 0)
#: The first engine whose BuildKit knows cache, bind and secret mounts without a download.
ENGINE_SINCE = (20, 10)
INSTALL = "install one: apt-get install -y docker.io, and start it: systemctl start docker"


@dataclass(frozen=True)
class Engine:
    """A Docker client that reaches an engine.

    Attributes:
        cli: path of the client.
        client_version: e.g. ``20.10.24+dfsg1``.
        server_version: the engine's.
        buildx: whether the client builds through the buildx plug-in.
        build_options: what that builder must be given to write one plain image to the engine.
    """

    cli: str
    client_version: str
    server_version: str
    buildx: bool
    build_options: tuple[str, ...] = ()

    def run(self, *arguments: str, timeout_seconds: float = 60) -> str:
        """The output of a client command.

        Raises:
            EngineError: the command failed; carries the last line of its messages.
        """
        done = _ask(self.cli, *arguments, timeout_seconds=timeout_seconds)
        if done.returncode != 0:
            raise EngineError(f"docker {' '.join(arguments[:2])} failed: {_last_line(done.stderr)}")
        return done.stdout

    def has_image(self, reference: str) -> bool:
        """Whether the engine already holds an image."""
        return _ask(self.cli, "image", "inspect", "--format", "-", reference).returncode == 0

    def root_directory(self) -> Path | None:
        """Where the engine keeps its images, when that is on this machine."""
        answer = _ask(self.cli, "info", "--format", "{{.DockerRootDir}}").stdout.strip()
        remote = os.environ.get("DOCKER_HOST", "unix://").partition("://")[0] != "unix"
        return Path(answer) if answer and not remote and Path(answer).is_dir() else None

    def __str__(self) -> str:
        builder = "buildx" if self.buildx else "built-in BuildKit"
        return f"{self.cli} {self.client_version}, engine {self.server_version}, {builder}"


def candidates() -> list[str]:
    """Docker clients of this machine, in the order in which they are tried.

    ``BYOC_DOCKER`` names the only one to use.
    """
    named = os.environ.get("BYOC_DOCKER")
    if named:
        return [shutil.which(named) or named]
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = (str(Path(folder) / "docker") for folder in folders if folder)
    return list(dict.fromkeys(path for path in found if os.access(path, os.X_OK)))


def find() -> Engine:
    """The first client whose engine answers and that can build with BuildKit.

    Raises:
        EngineError: there is none; says why for each client that was tried.
    """
    paths = candidates()
    if not paths:
        raise EngineError(f"no docker command on this machine; {INSTALL}")
    reasons: dict[str, str] = {}
    for path in paths:
        try:
            return probe(path)
        except EngineError as error:  # noqa: PERF203 - a handful of clients
            reasons[path] = str(error)
    if len(set(reasons.values())) == 1:
        raise EngineError(next(iter(reasons.values())))
    raise EngineError("; ".join(f"{path}: {reason}" for path, reason in reasons.items()))


def probe(cli: str) -> Engine:
    """What a client can do.

    Raises:
        EngineError: its engine does not answer, is too old, or it cannot build with BuildKit.
    """
    done = _ask(cli, "version", "--format", "{{.Client.Version}} {{.Server.Version}}")
    versions = done.stdout.split()
    if done.returncode != 0 or len(versions) < 2:
        raise EngineError(f"no Docker engine answers ({_last_line(done.stderr)}); {INSTALL}")
    client, server = versions[:2]
    if _numbers(server) < ENGINE_SINCE:
        raise EngineError(f"Docker engine {server} is too old to build; 20.10 or newer is needed")
    if _ask(cli, "buildx", "version").returncode == 0:
        return Engine(cli, client, server, buildx=True, build_options=_buildx_options(cli))
    if _numbers(client) < BUILDX_SINCE:
        return Engine(cli, client, server, buildx=False)
    raise EngineError(
        f"Docker client {client} has no buildx plug-in, which it needs to build; "
        "install it: apt-get install -y docker-buildx-plugin (or docker-buildx)"
    )


def _buildx_options(cli: str) -> tuple[str, ...]:
    """One plain image, in the engine: SageMaker refuses indexes with attestations."""
    options = ["--load"]
    # The builder inside the engine sees the engine's images; it is named like the context.
    context = _ask(cli, "context", "show").stdout.strip() or "default"
    options += ["--builder", context]
    known = _ask(cli, "buildx", "build", "--help").stdout
    options += [f"--{name}=false" for name in ("provenance", "sbom") if f"--{name}" in known]
    return tuple(options)


def _ask(
    cli: str, *arguments: str, timeout_seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [cli, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 1, "", f"no answer in {timeout_seconds:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess([], 1, "", f"{cli}: {error.strerror}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
