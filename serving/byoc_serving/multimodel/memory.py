"""What models take and what is left, so that a load is refused before the kernel kills.

The kernel's figures: ``smaps_rollup`` of a process, ``memory.current`` and ``memory.max`` of the
control groups (v1: ``usage_in_bytes``, ``limit_in_bytes``), ``MemAvailable`` of the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_serving.errors import InsufficientMemoryError
from byoc_serving.machine import MODEL_FACTOR, cgroup_folders

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
#: A model's process without the model: pages that it does not share with the zygote (measured
#: 6 to 12 MiB after a load and a request, rounded up).
PROCESS_BYTES = 24 * MIB
#: Kept free for the front's bodies and what running models need for their next request.
RESERVE_BYTES = 64 * MIB


@dataclass(frozen=True)
class Usage:
    """A process's memory: alone (what its end frees), and with its share of shared pages."""

    private_bytes: int
    pss_bytes: int


def usage(process: str = "self", filesystem: Path = Path("/")) -> Usage:
    """Measure a process; kernels without ``smaps_rollup`` give resident minus shared pages."""
    fields = _fields(filesystem / "proc" / process / "smaps_rollup")
    if "Pss" in fields:
        names = ("Private_Clean", "Private_Dirty", "Private_Hugetlb", "Swap")
        private = sum(fields.get(name, 0) for name in names)
        return Usage(private * 1024, (fields["Pss"] + fields.get("SwapPss", 0)) * 1024)
    words = (_read(filesystem / "proc" / process / "statm") or "0 0 0").split()
    private = max(0, int(words[1]) - int(words[2])) * 4096
    return Usage(private, private)


def available_bytes(filesystem: Path = Path("/")) -> int:
    """Bytes that can be allocated before anything must be killed, by the tightest limit."""
    left = [_fields(filesystem / "proc/meminfo").get("MemAvailable", 1 << 40) * 1024]
    for folder in cgroup_folders(filesystem, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _read(folder / limit_name), _read(folder / used_name)
            if limit and used and limit.isdigit() and used.isdigit():
                left.append(int(limit) - int(used) + _reclaimable(folder))
    return max(0, min(left))


def _reclaimable(folder: Path) -> int:
    """File cache that the kernel gives up for the asking; of the active one count half."""
    fields = _fields(folder / "memory.stat")
    inactive = fields.get("total_inactive_file", fields.get("inactive_file", 0))
    active = fields.get("total_active_file", fields.get("active_file", 0))
    return inactive + active // 2 + fields.get("slab_reclaimable", 0)


def oom_kills(filesystem: Path = Path("/")) -> int:
    """How often the kernel has killed in this control group for want of memory."""
    kills = 0
    for folder in cgroup_folders(filesystem, "memory"):
        for name in ("memory.events", "memory.oom_control"):
            kills = max(kills, _fields(folder / name).get("oom_kill", 0))
    return kills


class Budget:
    """The memory of all models: reserved while one loads, measured when it has.

    Args:
        limit_bytes: for all models together; None: what the machine has.
        max_models: how many; None: as many as fit.
        available: tells what is left on the machine.
    """

    def __init__(
        self,
        limit_bytes: int | None,
        max_models: int | None,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._max_models = max_models
        self._available = available
        self._loading: dict[str, int] = {}
        self._loaded: dict[str, int] = {}

    def reserve(self, name: str, model_bytes: int) -> None:
        """Set memory aside for a model that begins to load.

        With no other model in memory nothing could be unloaded to make room, so then only a
        model whose bare weights do not fit is refused.

        Raises:
            InsufficientMemoryError: there is too little; says how much is there.
        """
        others = len(self._loading) + len(self._loaded)
        if self._max_models is not None and others >= self._max_models:
            raise InsufficientMemoryError(
                f"{others} models are loaded, the limit is {self._max_models} "
                "(BYOC_MAX_MODELS); unload one first"
            )
        need = MODEL_FACTOR * model_bytes + PROCESS_BYTES
        reserved = sum(self._loading.values())
        least = need if others else model_bytes + PROCESS_BYTES
        if self._limit_bytes is not None:
            left = self._limit_bytes - reserved - sum(self._loaded.values())
            if left < need:
                raise _too_little(need, left, "BYOC_MODELS_MEMORY_BYTES leaves")
        left = self._available() - reserved - RESERVE_BYTES
        if left < least:
            raise _too_little(least, left, "the machine or its limit leaves")
        self._loading[name] = need

    def settle(self, name: str, private_bytes: int) -> None:
        """A model is loaded and takes this much."""
        self._loading.pop(name, None)
        self._loaded[name] = private_bytes

    def free(self, name: str) -> None:
        """A model is gone."""
        self._loading.pop(name, None)
        self._loaded.pop(name, None)


def _too_little(need: int, left: int, who: str) -> InsufficientMemoryError:
    return InsufficientMemoryError(
        f"loading takes up to {mib(need)} MiB, {who} {mib(max(0, left))} MiB; unload another "
        "model, or use a larger instance"
    )


def mib(count: int) -> int:
    """Bytes in MiB, rounded up."""
    return -(-count // MIB)


def _fields(path: Path) -> dict[str, int]:
    """``name value`` or ``name: value kB`` lines."""
    found = re.findall(r"^(\w+):?\s+(\d+)", _read(path) or "", re.MULTILINE)
    return {name: int(value) for name, value in found}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
