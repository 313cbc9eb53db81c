"""What the kernel says about memory: limits and kills, from cgroup v2 or v1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
#: cgroup v1 says "no limit" with a number near 2^63.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class MemoryState:
    """The memory of the container at one moment.

    Attributes:
        kills: How many processes the kernel has killed for lack of memory.
        limit_bytes: The container's limit, or the machine's memory.
    """

    kills: int
    limit_bytes: int

    def killed_since(self, earlier: MemoryState) -> bool:
        """Whether a process was killed for lack of memory after an earlier moment."""
        return self.kills > earlier.kills

    @property
    def limit(self) -> str:
        """The limit for people."""
        return f"{self.limit_bytes / 2**30:.1f} GiB"


def state() -> MemoryState:
    """Read the counters; absent ones count as zero."""
    kills, limit = 0, _machine_bytes()
    for folder in _folders():
        events = _read(folder / "memory.events") or _read(folder / "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)", events, re.MULTILINE)
        if found:
            kills = max(kills, int(found[1]))
        text = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if text.strip().isdecimal() and int(text) < _NO_LIMIT:
            limit = min(limit, int(text))
    return MemoryState(kills, limit)


def used_bytes() -> int:
    """Memory in use, without files that the kernel keeps only because there is room."""
    for folder in _folders():
        text = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if text.strip().isdecimal():
            # In version 1 the plain name leaves out the groups below.
            stat = dict(re.findall(r"^(\w+) (\d+)$", _read(folder / "memory.stat"), re.MULTILINE))
            files = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
            return max(0, int(text) - int(files))
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    return _machine_bytes() - int(found[1]) * 1024 if found else 0


def _folders() -> list[Path]:
    """Our group by the path that the kernel gives, and the root, which it is in a container."""
    folders = []
    for line in _read(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folders += [_ROOT / path.lstrip("/"), _ROOT]
        elif "memory" in controllers.split(","):
            folders += [_ROOT / "memory" / path.lstrip("/"), _ROOT / "memory"]
    return folders


def _machine_bytes() -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
