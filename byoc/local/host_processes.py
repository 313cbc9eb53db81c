"""Hosts of a job as processes of this environment.

As root each has a mount namespace of its own, in which the job's folder is ``/opt/ml`` and the
names ``algo-1`` … are addresses of the loopback interface. Else ``BYOC_ROOT`` tells our own
``train`` where the folder is, and a job that names its entry point cannot run here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from byoc.local import orphans, standing_in
from byoc.local.exports import variables
from byoc.local.hosts import Bind, End, Host, HostError, Started
from byoc.local.runners.base import follow, inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Reads pairs of folders from its first argument on, up to ``--``; then becomes the program.
_MOUNTS = """
while [ "$1" != -- ]; do
    mount --bind "$1" "$2" || exit 125
    if [ "$3" = ro ]; then mount -o remount,bind,ro "$2" || exit 125; fi
    shift 3
done
shift
exec "$@"
"""
_OUTPUT_SECONDS = 5


@functools.cache
def namespaces() -> bool:
    """Whether processes here can have mounts of their own, with an ``/opt/ml`` to mount on."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    try:
        Path("/opt/ml").mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    test = ["unshare", "--mount", "mount", "--bind", "/", "/opt/ml"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


class ProcessCluster:
    """Hosts that are processes.

    Args:
        home: The endpoint's folder; processes carry its mark.
        url: The endpoint.
        region: Its region.
        job: The job's ARN.
        count: How many hosts there are.
    """

    interface = "lo"

    def __init__(self, home: Path, url: str, region: str, job: str, count: int) -> None:
        self._home, self._job = home, job
        addresses = [f"127.0.0.{number}" for number in range(1, count + 1)]
        self._private = namespaces()
        self.names = [f"algo-{n}" for n in range(1, count + 1)] if self._private else addresses
        if count == 1:
            self.names = ["algo-1"]
        self._table = dict(zip(self.names, addresses, strict=True))
        self.variables: Mapping[str, str] = variables(url, region)
        if count > 1:
            # Two jobs at a time would meet at the same port of the same address.
            self.variables = {**self.variables, "BYOC_MASTER_PORT": str(_two_free_ports())}
        self._marks: list[str] = []

    def start(
        self, host: Host, on_line: Callable[[str], None], on_end: Callable[[End], None]
    ) -> Started:
        """Start a process."""
        command = [*host.entrypoint, *host.arguments]
        if not command:
            raise HostError(
                "neither an entry point nor arguments are given, and this environment, which "
                "stands for the image, has no default"
            )
        if not self._private and command != ["train"]:
            raise HostError(
                "a job with an entry point of its own needs /opt/ml, so here it needs a Docker "
                "engine, or an endpoint that root has started"
            )
        here = Path(sys.executable).parent
        path = f"{here}:{os.environ.get('PATH', os.defpath)}"
        program = shutil.which(command[0], path=path)
        if program is None and not command[0].startswith("/opt/ml/"):
            raise HostError(
                f"no program {command[0]} is in this environment; it stands for the image"
            )
        command[0] = program or command[0]
        mark = orphans.mark(self._home, self._job, host.name)
        self._marks.append(mark)
        environ = {
            **inherited(),
            "PATH": path,
            **standing_in.defaults(),
            **host.environment,
            orphans.MARK: mark,
        }
        if self._private:
            command = self._namespaced(host, command)
        else:
            environ["BYOC_ROOT"] = str(host.root)
            self._beside(host)
        try:
            process = subprocess.Popen(
                command,
                env=environ,
                cwd=host.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"{command[0]} cannot be started: {error.strerror}") from error
        return _Started(process, mark, on_line, on_end)

    def close(self) -> None:
        """Kill what is left."""
        for mark in self._marks:
            orphans.end(mark)

    def _namespaced(self, host: Host, command: list[str]) -> list[str]:
        names = host.root.parent / f"{host.name}.hosts"
        try:
            known = Path("/etc/hosts").read_text("utf-8", "replace")
        except OSError:
            known = "127.0.0.1 localhost\n"
        lines = [f"{self._table[name]} {name}\n" for name in self.names]
        names.write_text("".join([known.rstrip("\n"), "\n", *lines]))
        mounts = [str(host.root), "/opt/ml", "rw", str(names), "/etc/hosts", "ro"]
        for bind in host.binds:
            self._target(host, bind)
            mounts += [str(bind.source), bind.target, "ro" if bind.read_only else "rw"]
        return ["unshare", "--mount", "/bin/sh", "-c", _MOUNTS, "sh", *mounts, "--", *command]

    def _target(self, host: Host, bind: Bind) -> None:
        """Make the folder that is mounted on."""
        if bind.target.startswith("/opt/ml/"):
            (host.root / bind.target.removeprefix("/opt/ml/")).mkdir(parents=True, exist_ok=True)
        elif not Path(bind.target).is_dir():
            raise HostError(f"{bind.target} is not below /opt/ml; that needs a Docker engine")

    def _beside(self, host: Host) -> None:
        """Without a namespace: links in place of mounts."""
        for bind in host.binds:
            if not bind.target.startswith("/opt/ml/"):
                raise HostError(f"{bind.target} is not below /opt/ml; that needs a Docker engine")
            link = host.root / bind.target.removeprefix("/opt/ml/")
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_dir() and not link.is_symlink():
                link.rmdir()
            if not link.is_symlink():
                link.symlink_to(bind.source.resolve())


class _Started:
    def __init__(
        self,
        process: subprocess.Popen[bytes],
        mark: str,
        on_line: Callable[[str], None],
        on_end: Callable[[End], None],
    ) -> None:
        self._process, self._mark, self._on_end = process, mark, on_end
        self._asked = False
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self._output = process.stdout
        self._reader = follow(self._output, on_line)
        threading.Thread(target=self._wait, name="host", daemon=True).start()

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._asked = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        orphans.end(self._mark)

    def _wait(self) -> None:
        code = self._process.wait()
        # As in a container, whatever the first process has left behind ends with it.
        orphans.end(self._mark)
        self._reader.join(_OUTPUT_SECONDS)
        if not self._reader.is_alive():
            self._output.close()
        killed = code == -signal.SIGKILL and not self._asked
        words = "the process was killed from outside, or for want of memory" if killed else ""
        self._on_end(End(code if code >= 0 else 128 - code, words))


def _two_free_ports() -> int:
    """A port that nobody has, and nobody its neighbour."""
    while True:
        with socket.create_server(("", 0)) as one:
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server(("", port + 1)):
                return port
