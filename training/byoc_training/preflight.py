"""The first lines of the log: what runs, where, on what. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

from byoc_training import memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc_training.environment import Environment

#: Longest time that all channels together are looked at.
CHANNEL_SECONDS = 0.05
SHM = "/dev/shm"  # noqa: S108 - looked at, never written to
DISTRIBUTIONS = ("torch", "torchvision", "numpy")


def lines(environment: Environment) -> Iterator[str]:
    """The report, a line at a time."""
    versions = [f"Python {platform.python_version()}"]
    found = installed_versions(("sagemaker_byoc", *DISTRIBUTIONS))
    versions += [f"{name} {version}" for name, version in found.items() if name in DISTRIBUTIONS]
    job = f"job {environment.job_name}, " if environment.job_name else ""
    yield f"{job}sagemaker-byoc {found.get('sagemaker_byoc', '?')}, {', '.join(versions)}"
    cluster, devices = environment.cluster, environment.devices
    yield (
        f"host {cluster.current_host}, rank {cluster.rank} of {len(cluster.hosts)}, "
        f"{cluster.instance_type}: {devices.cpus} CPUs, memory {memory.state().limit}, "
        f"{SHM} {free(SHM)} free, {environment.paths.root} {free(environment.paths.root)} free"
    )
    if devices.gpus:
        yield f"{len(devices.gpus)} GPUs, the first: {devices.gpus[0]}"
    else:
        yield "no GPU"
    share = CHANNEL_SECONDS / max(1, len(environment.channels))
    for channel in environment.channels.values():
        yield channel.describe(share)
    if environment.checkpoints is not None:
        yield f"checkpoints in {environment.checkpoints}"


def installed_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions by the names of the metadata folders: importlib.metadata takes 20 ms to import."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = [entry.name for entry in os.scandir(folder or ".")]
        except OSError:
            continue
        for entry in entries:
            name, dash, rest = entry.partition("-")
            if dash and name in names and rest.endswith(".dist-info"):
                found.setdefault(name, rest.removesuffix(".dist-info"))
    return {name: found[name] for name in names if name in found}


def free(path: str | os.PathLike[str]) -> str:
    """Free space for people."""
    try:
        status = os.statvfs(path)
    except OSError:
        return "nothing"
    size = status.f_bavail * status.f_frsize
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
