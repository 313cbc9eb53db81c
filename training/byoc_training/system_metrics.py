"""What a host does: its processors, memory and GPUs, sampled by a thread.

The container's own share where the kernel keeps books on it (cgroup v2 or v1), else the whole
machine's; on the platform these are the same.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_training import memory

if TYPE_CHECKING:
    from collections.abc import Callable

_CGROUPS = Path("/sys/fs/cgroup")
_STAT = Path("/proc/stat")
#: There where the NVIDIA driver is.
_NVIDIA = Path("/dev/nvidiactl")


class Sampler:
    """A thread that looks now and then.

    Args:
        take: Is given each sample, in the sampler's thread: ``cpu_percent`` (of all processors that
            this process may use), ``memory_bytes``, ``memory_percent``, and for each GPU
            ``gpu_0_percent`` and ``gpu_0_memory_bytes``.
        seconds: From one sample to the next.
    """

    def __init__(self, take: Callable[[dict[str, float]], None], seconds: float) -> None:
        self._take = take
        self._seconds = seconds
        self._end = threading.Event()
        self._machine = Machine()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take a last sample, so that a short program has one too, and end the thread."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._take(self._machine.sample())
        self._take(self._machine.sample())
        self._machine.close()


class Machine:
    """The host, or the container, between two looks."""

    def __init__(self) -> None:
        self._processors = _processors()
        self._busy, self._at = _busy_seconds(), time.monotonic()
        self._nvml: Any = None
        self._gpus: list[Any] | None = None

    def sample(self) -> dict[str, float]:
        """What has happened since the last sample; see `Sampler`."""
        busy, at = _busy_seconds(), time.monotonic()
        passed = max(at - self._at, 1e-6) * self._processors
        values = {"cpu_percent": round(min(100.0, 100 * (busy - self._busy) / passed), 1)}
        self._busy, self._at = busy, at
        used, limit = memory.used_bytes(), memory.state().limit_bytes
        values["memory_bytes"] = used
        values["memory_percent"] = round(100 * used / limit, 1) if limit else 0.0
        values.update(self._gpu_values())
        return values

    def close(self) -> None:
        """Let go of the driver."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def _gpu_values(self) -> dict[str, float]:
        if self._gpus is None:
            self._gpus = self._find_gpus()
        values = {}
        for number, handle in enumerate(self._gpus):
            try:
                busy = self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu
                used = self._nvml.nvmlDeviceGetMemoryInfo(handle).used
            except self._nvml.NVMLError:
                # One that has fallen off the bus; the training will say so.
                continue
            values[f"gpu_{number}_percent"] = float(busy)
            values[f"gpu_{number}_memory_bytes"] = float(used)
        return values

    def _find_gpus(self) -> list[Any]:
        if not _NVIDIA.exists():
            return []
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - only where there is a driver

        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except pynvml.NVMLError:
            return []
        self._nvml = pynvml
        return gpus


def _processors() -> float:
    """How many the process may use: those of its mask, or less by a quota."""
    count = float(len(os.sched_getaffinity(0)))
    quota, _, period = _read(_CGROUPS / "cpu.max").partition(" ")
    if not period:
        quota = _read(_CGROUPS / "cpu" / "cpu.cfs_quota_us")
        period = _read(_CGROUPS / "cpu" / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal() and int(period):
        count = min(count, int(quota) / int(period))
    return count


def _busy_seconds() -> float:
    """Processor time used so far."""
    words = _read(_CGROUPS / "cpu.stat").split()
    if words[:1] == ["usage_usec"]:
        return int(words[1]) / 1e6
    nanoseconds = _read(_CGROUPS / "cpuacct" / "cpuacct.usage")
    if nanoseconds.isdecimal():
        return int(nanoseconds) / 1e9
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(word) for word in _read(_STAT).split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
