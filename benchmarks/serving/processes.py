"""A server's processes: start, find them all, weigh them, end them all."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

TICKS = os.sysconf("SC_CLK_TCK")
STOP_S = 15.0


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this program, so that the servers that it started end with it."""
    signal.signal(signal.SIGTERM, _unwind)


def _unwind(number: int, frame: FrameType | None) -> None:
    _ = frame
    sys.exit(128 + number)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; below 32,768, since some Java servers take no others."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.randint(10_000, 32_000)))
                found.append(int(probe.getsockname()[1]))
        return found


class Processes:
    """A command and every process that comes from it.

    Args:
        command: the command.
        environ: its variables, complete.
        folder: where it runs.
        log: takes its output.
    """

    def __init__(
        self, command: list[str], environ: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.log = log
        self._seen: dict[int, float] = {}
        self.started = time.monotonic()
        with log.open("wb") as output:
            self.root = subprocess.Popen(
                command,
                env=dict(environ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """The exit code of the first process, None while it runs."""
        return self.root.poll()

    def pids(self) -> list[int]:
        """Every living process of the tree, those that have left it included."""
        parents, sessions = _table()
        found = {self.root.pid} | {pid for pid in self._seen if _born(pid) == self._seen[pid]}
        found |= {pid for pid, session in sessions.items() if session == self.root.pid}
        grown = True
        while grown:
            grown = False
            for pid, parent in parents.items():
                if parent in found and pid not in found:
                    found.add(pid)
                    grown = True
        alive = sorted(found & set(parents))
        for pid in alive:
            self._seen[pid] = _born(pid)
        return alive

    def pss_mib(self) -> float:
        """Proportional set size of all processes, in MiB."""
        return sum(_pss_kib(pid) for pid in self.pids()) / 1024

    def rss_mib(self) -> dict[int, float]:
        """Resident set size of each process, in MiB."""
        sizes: dict[int, float] = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                sizes[pid] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return sizes

    def cpu_s(self) -> float:
        """CPU seconds that all living processes have used."""
        return sum(_cpu_s(pid) for pid in self.pids())

    def tail(self, lines: int = 3) -> str:
        """The last words of the log."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:])[-400:]

    def stop(self) -> None:
        """SIGTERM, time to end, then SIGKILL for whatever is left."""
        everyone = self.pids()
        if self.code is None:
            self.root.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.root.wait(STOP_S)
        for pid in sorted({*everyone, *self.pids()}):
            # A pid that now belongs to somebody else has another birth.
            if _born(pid) == self._seen.get(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.root.wait(STOP_S)


def busy_s() -> list[float]:
    """Seconds that each core has been busy since the machine started."""
    cores = []
    for line in Path("/proc/stat").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, rest.split())
            cores.append((user + nice + system + irq + softirq) / TICKS)
    return cores


def _stat(pid: int) -> list[str]:
    """``/proc/<pid>/stat`` from the third field on; the second may hold blanks."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _born(pid: int) -> float:
    fields = _stat(pid)
    return float(fields[19]) if fields and fields[0] != "Z" else -1.0


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def _table() -> tuple[dict[int, int], dict[int, int]]:
    """The parent and the session of every process."""
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and fields[0] != "Z":
            parents[int(entry.name)] = int(fields[1])
            sessions[int(entry.name)] = int(fields[3])
    return parents, sessions


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
