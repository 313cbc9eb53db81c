"""``docker build``: what must be there before, its command line, and its failures in one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from byoc.checkout import version
from byoc.errors import BuildError
from byoc.lanes import KINDS, LANES, tags

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from byoc.checkout import Revision
    from byoc.engine import Engine
    from byoc.lanes import Kind

Progress = Literal["auto", "plain", "quiet"]

PLATFORM = "linux/amd64"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
#: Free disk for a build from nothing: an image, its wheels in the cache, and the layer in making.
NEED_BYTES: dict[Kind, int] = {"training": 18_000_000_000, "inference": 16_000_000_000}
#: Free disk for a build of which an earlier one is in the engine.
NEED_AGAIN_BYTES = 3_000_000_000


@dataclass(frozen=True)
class BuildOptions:
    """How to build; the defaults are those of ``byoc build``.

    Attributes:
        kinds: which images.
        lane: a name in ``LANES``.
        base_image: in place of the lane's own.
        tag: in place of the git revision.
        no_cache: run every step again.
        network: of the build steps, as ``docker build --network``.
        ca_bundle: certificates that the package index is verified with; a build secret.
        pip_config: a pip.conf that names the package index; a build secret.
        keep_triton: keep Triton, and a C compiler, in the inference image.
        progress: ``auto`` (the client's display on a terminal), ``plain`` or ``quiet``.
        compressed: measure the gzip-compressed sizes, too.
    """

    kinds: tuple[Kind, ...] = KINDS
    lane: str = "cu128"
    base_image: str | None = None
    tag: str | None = None
    no_cache: bool = False
    network: str | None = None
    ca_bundle: Path | None = None
    pip_config: Path | None = None
    keep_triton: bool = False
    progress: Progress = "auto"
    compressed: bool = False

    @property
    def base(self) -> str:
        """The base image to build on."""
        return self.base_image or LANES[self.lane].base_image


def have_disk(engine: Engine, options: BuildOptions) -> None:
    """Raise when the engine's disk is too full for the build.

    Raises:
        BuildError: says how much is free and how much is needed.
    """
    folder = engine.root_directory()
    if folder is None:
        return
    need_bytes = 0
    for kind in options.kinds:
        again = engine.has_image(tags(kind, options.lane, "latest")[1]) and not options.no_cache
        need_bytes += NEED_AGAIN_BYTES if again else NEED_BYTES[kind]
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < need_bytes:
        raise BuildError(
            f"{free_bytes / 1e9:.1f} GB are free in {folder}, the build may need "
            f"{need_bytes / 1e9:.0f} GB; free some: docker image prune, docker builder prune"
        )


def have_base(engine: Engine, base: str) -> None:
    """Pull the base image unless the engine has it.

    Raises:
        BuildError: it cannot be pulled.
    """
    if engine.has_image(base):
        return
    print(f"pulling the base image {base}", flush=True)
    done = subprocess.run(
        [engine.cli, "pull", "--quiet", "--platform", PLATFORM, base],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildError(
            f"the base image {base} is not here and cannot be pulled ({reason}); make one: "
            "sudo docker/offline-base sagemaker-byoc-base:bookworm, then "
            "byoc build --base-image sagemaker-byoc-base:bookworm"
        )


def command_line(
    engine: Engine,
    root: Path,
    kind: Kind,
    names: Sequence[str],
    options: BuildOptions,
    source: Revision,
) -> list[str]:
    """The ``docker build`` that makes an image."""
    lane = LANES[options.lane]
    lock = (root / "locks" / f"{kind}-{lane.name}.txt").read_text()
    torch = re.search(r"(?m)^torch==([^ ;\\]+)", lock)
    arguments = {
        "BASE_IMAGE": options.base,
        "CUDA_LANE": lane.name,
        "CUDA_VERSION": lane.cuda_version,
        "MINIMUM_DRIVER": lane.minimum_driver,
        "TORCH_VERSION": torch[1] if torch else "",
        "VERSION": version(root),
        "REVISION": source.commit,
        "CREATED": source.created,
        "SOURCE": source.source,
    }
    if kind == "inference" and options.keep_triton:
        arguments["KEEP_TRITON"] = "1"
    command = [engine.cli, *(["buildx"] if engine.buildx else []), "build", *engine.build_options]
    command += ["--platform", PLATFORM, "--file", str(root / "docker" / f"{kind}.Dockerfile")]
    for name in names:
        command += ["--tag", name]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for name in PROXIES:
        if os.environ.get(name):
            command += ["--build-arg", name]
    for secret, file in (("ca", options.ca_bundle), ("pip_conf", options.pip_config)):
        if file is not None:
            command += ["--secret", f"id={secret},src={file.absolute()}"]
    command += ["--no-cache"] if options.no_cache else []
    command += ["--network", options.network] if options.network else []
    command += ["--progress", "auto" if options.progress == "auto" else "plain"]
    return [*command, str(root)]


def run(command: Sequence[str], progress: Progress) -> None:
    """Run a ``docker build`` and show it.

    Raises:
        BuildError: it failed; carries the cause.
    """
    environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": ""}
    kept: deque[str] = deque(maxlen=60)
    if progress == "auto" and sys.stderr.isatty():
        code = subprocess.run(command, env=environment, check=False).returncode
    else:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as building:
            assert building.stdout is not None  # noqa: S101 - a pipe was asked for
            for line in building.stdout:
                kept.append(line.rstrip())
                if progress != "quiet":
                    print(line, end="", file=sys.stderr, flush=True)
        code = building.returncode
    if code == 0:
        return
    if any("no space left on device" in line.lower() for line in kept):
        raise BuildError(
            "the disk is full; free some space: docker image prune, docker builder prune"
        )
    if progress == "quiet":
        print(*kept, sep="\n", file=sys.stderr, flush=True)
    causes = [line for line in kept if re.search(r"(?i)\b(error|failed)\b", line)]
    cause = re.sub(r"^#\d+ [\d.]+ ", "", causes[-1]).strip() if causes else "see the lines above"
    raise BuildError(f"docker build ended with exit code {code}: {cause[:400]}")
