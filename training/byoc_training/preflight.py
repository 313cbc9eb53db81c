"""The first lines of the log: what runs, where, on what. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_training import memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc_training.environment import Environment

#: Longest time that all channels together are looked at.
CHANNEL_SECONDS = 0.05
SHM = "/dev/shm"  # noqa: S108 - looked at, never written to
DISTRIBUTIONS = ("torch", "torchvision", "numpy")
#: Docker's default; DataLoader workers that fill it end in a bus error.
SMALL_SHM_BYTES = 256 * 2**20
LITTLE_SPACE_BYTES = 2**30
#: Types with NVIDIA GPUs: ml.g4dn.xlarge, ml.p5.48xlarge.
_GPU_TYPE = re.compile(r"ml\.[gp]\d")
_DRIVER = Path("/proc/driver/nvidia/version")
#: The oldest Linux driver that runs a major version of CUDA, by NVIDIA's minor-version
#: compatibility (CUDA release notes, "CUDA driver versions").
_OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}


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


def warnings(environment: Environment) -> Iterator[str]:
    """What will most likely end the job later, in a way that is harder to understand."""
    devices, root = environment.devices, environment.paths.root
    if _GPU_TYPE.match(environment.cluster.instance_type) and not devices.gpus:
        yield (
            f"{environment.cluster.instance_type} has GPUs and none is visible here: the program "
            "runs on the CPU, if at all; locally, start the container with --gpus all"
        )
    cuda, driver = torch_cuda(), driver_version() if devices.gpus else None
    oldest = _OLDEST_DRIVER.get(cuda.split(".")[0]) if cuda else None
    if driver is not None and oldest is not None and int(driver.split(".")[0]) < oldest:
        yield (
            f"the NVIDIA driver {driver} is too old for this image's CUDA {cuda} (driver {oldest} "
            "or newer): torch will not see the GPUs; use another instance type, or an image of "
            "an older CUDA"
        )
    shm = _bytes(SHM, total=True)
    if shm is not None and shm < SMALL_SHM_BYTES:
        yield (
            f"{SHM} has {shm / 2**20:.0f} MiB: DataLoader workers that need more end in a bus "
            "error; use num_workers=0 or byoc_training.data.loader, or locally --shm-size=2g"
        )
    space = _bytes(root, total=False)
    if space is not None and space < LITTLE_SPACE_BYTES:
        yield (
            f"{root} has {free(root)} free: checkpoints and the model may not fit; raise "
            "VolumeSizeInGB"
        )


def torch_cuda() -> str | None:
    """The CUDA that the installed torch is built for, without importing it."""
    for folder in sys.path:
        try:
            text = Path(folder or ".", "torch", "version.py").read_text()
        except OSError:
            continue
        found = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
        return found[1] if found else None
    return None


def driver_version() -> str | None:
    """The NVIDIA driver's version, as its module says."""
    try:
        text = _DRIVER.read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None


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
    size = _bytes(path, total=False)
    if size is None:
        return "nothing"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _bytes(path: str | os.PathLike[str], *, total: bool) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return (status.f_blocks if total else status.f_bavail) * status.f_frsize
