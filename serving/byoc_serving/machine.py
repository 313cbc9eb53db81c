"""What this machine gives the process: cores, memory, GPUs. Reads files only, never torch."""

from __future__ import annotations

import contextlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A worker without its model: interpreter, torch on the CPU, numpy (measured, rounded up).
WORKER_BYTES = 600 * 1024 * 1024
#: Loading holds the file's bytes, the tensors and a copy at the worst moment.
MODEL_FACTOR = 3


@dataclass(frozen=True)
class Machine:
    """Usable resources.

    Attributes:
        cores: cores that this process may use: affinity and the cgroup's quota, at least 1.
        memory_bytes: the cgroup's limit or the machine's memory.
        gpus: CUDA ordinals or UUIDs that are visible, in order.
    """

    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]

    @classmethod
    def look(cls, environ: Mapping[str, str], filesystem: Path = Path("/")) -> Machine:
        """Measure the machine; ``filesystem`` is where ``sys``, ``proc`` and ``dev`` are."""
        cores = len(os.sched_getaffinity(0))
        quota = cpu_quota(filesystem)
        if quota is not None:
            cores = min(cores, max(1, math.floor(quota)))
        return cls(max(1, cores), memory_limit(filesystem), visible_gpus(environ, filesystem))

    def workers(self, model_bytes: int) -> int:
        """Processes that each hold the model: one a GPU, else one a core, as memory allows."""
        if self.gpus:
            return len(self.gpus)
        fitting = self.memory_bytes // (MODEL_FACTOR * model_bytes + WORKER_BYTES)
        return max(1, min(self.cores, fitting))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def cgroup_folders(filesystem: Path, controller: str) -> list[Path]:
    """This process's cgroup folders from its own up to the root, v2 and v1."""
    base = filesystem / "sys/fs/cgroup"
    folders: list[Path] = []
    for line in (_read(filesystem / "proc/self/cgroup") or "").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names == "":
            root = base
        elif controller in names.split(","):
            root = next((base / n for n in (names, controller) if (base / n).is_dir()), base)
        else:
            continue
        folder = root / path.lstrip("/")
        while folder != root and root in folder.parents:
            folders.append(folder)
            folder = folder.parent
        folders.append(root)
    # A container sees its own group at the mount's root, whatever /proc says.
    folders += [base, base / controller, base / "cpu,cpuacct"]
    return list(dict.fromkeys(folders))


def cpu_quota(filesystem: Path = Path("/")) -> float | None:
    """Cores by the cgroup's CPU quota (v2 ``cpu.max``, v1 ``cpu.cfs_*``), None: unlimited."""
    quotas: list[float] = []
    for folder in cgroup_folders(filesystem, "cpu"):
        both = (_read(folder / "cpu.max") or "").split()
        if not both:
            quota, period = (
                _read(folder / "cpu.cfs_quota_us"),
                _read(folder / "cpu.cfs_period_us"),
            )
            both = [quota, period] if quota and period else []
        if len(both) == 2 and both[0].isdigit() and both[1].isdigit() and int(both[1]):
            quotas.append(int(both[0]) / int(both[1]))
    return min(quotas, default=None)


def memory_limit(filesystem: Path = Path("/")) -> int:
    """Bytes that this process may use: the cgroup's limit or the machine's memory."""
    limits: list[int] = []
    for folder in cgroup_folders(filesystem, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text and text.isdigit():
                limits.append(int(text))
    total = re.search(r"MemTotal:\s+(\d+) kB", _read(filesystem / "proc/meminfo") or "")
    if total:
        limits.append(int(total[1]) * 1024)
    return min(limits, default=1 << 30)


def visible_gpus(environ: Mapping[str, str], filesystem: Path = Path("/")) -> tuple[str, ...]:
    """GPUs that CUDA will see, from the device nodes and ``CUDA_VISIBLE_DEVICES``."""
    nodes = sorted(
        int(node.name[len("nvidia") :])
        for node in (filesystem / "dev").glob("nvidia[0-9]*")
        if node.name[len("nvidia") :].isdigit()
    )
    present = tuple(str(position) for position in range(len(nodes)))
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not present:
        return present
    visible: list[str] = []
    for part in (piece.strip() for piece in chosen.split(",")):
        # CUDA stops at the first device that it does not know.
        if part.isdigit() and int(part) >= len(present):
            break
        if not part or part.startswith("-"):
            break
        visible.append(part)
    return tuple(visible)


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``; 0 when it is missing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total
