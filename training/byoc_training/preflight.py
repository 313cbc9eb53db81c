"""The first lines of the log: what runs, where, on what. Imports nothing heavy.

Whatever a file system does, the report takes no longer than `CHANNEL_SECONDS` and a few times
`SPACE_SECONDS`.
"""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_training import memory, versions
from byoc_training.channels import sized
from byoc_training.environment import PROCESSES
from byoc_training.look import Look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from byoc_training.environment import Environment

#: Longest time that all channels together are looked at, and what a look may come late.
CHANNEL_SECONDS = 0.08
_LATE_SECONDS = 0.05
#: Longest time for one question about a file system's space.
SPACE_SECONDS = 0.02
SHM = "/dev/shm"  # noqa: S108 - looked at, never written to
#: What decides how a program runs, besides the libraries of `versions.LIBRARIES`.
DISTRIBUTIONS = ("torch", "torchvision", "numpy", "tensorboard", "mlflow_skinny", "webdataset")
#: Docker's default; DataLoader workers that fill it end in a bus error.
SMALL_SHM_BYTES = 256 * 2**20
LITTLE_SPACE_BYTES = 2**30
_MANY_HOSTS = 8
#: Types with NVIDIA GPUs (ml.g4dn.xlarge, ml.p5.48xlarge), and SDK v2's local mode with them.
_GPU_TYPE = re.compile(r"ml\.[gp]\d|local_gpu$")
#: The oldest Linux driver that runs a major version of CUDA, by NVIDIA's minor-version
#: compatibility (CUDA release notes, "CUDA driver versions").
_OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}
#: Where AWS's EFA installer and distributions put NCCL's plug-in (aws-ofi-nccl).
_PLUGIN_FOLDERS = (
    "/opt/amazon/ofi-nccl/lib",
    "/opt/amazon/ofi-nccl/lib/x86_64-linux-gnu",
    "/opt/amazon/ofi-nccl/lib64",
    "/opt/aws-ofi-nccl/lib",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
)


def lines(environment: Environment) -> Iterator[str]:
    """The report, a line at a time."""
    cluster, devices = environment.cluster, environment.devices
    # All at once: a channel that is quickly counted leaves its time to the others.
    looks = [
        Look(lambda channel=channel: channel.describe(CHANNEL_SECONDS))  # type: ignore[misc]
        for channel in environment.channels.values()
    ]
    until = time.monotonic() + CHANNEL_SECONDS + _LATE_SECONDS
    found = versions.installed(("sagemaker_byoc", *DISTRIBUTIONS, *versions.LIBRARIES))
    job = f"job {environment.job_name}, " if environment.job_name else ""
    yield f"{job}sagemaker-byoc {found.pop('sagemaker_byoc', '?')}, {_software(found)}"
    yield (
        f"host {cluster.current_host}, rank {cluster.rank} of {len(cluster.hosts)}, "
        f"{cluster.instance_type}: {devices.cpus} CPUs, memory {memory.state().limit}, "
        f"{SHM} {free(SHM)} free, {environment.paths.root} {free(environment.paths.root)} free"
    )
    if len(cluster.hosts) > 1:
        yield _hosts(environment)
    gpus = f"{len(devices.gpus)} GPUs, the first: {devices.gpus[0]}" if devices.gpus else "no GPU"
    driver = f", NVIDIA driver {devices.driver}" if devices.driver else ""
    compat = ", CUDA forward compatibility" if driver and _compatibility(os.environ) else ""
    efa = f", {devices.efa} EFA devices" if devices.efa else ", no EFA" if driver else ""
    yield gpus + driver + compat + efa
    for channel, look in zip(environment.channels.values(), looks, strict=True):
        yield look.answer(until) or (
            f"channel {channel.name}: {channel.path} has not answered within "
            f"{CHANNEL_SECONDS + _LATE_SECONDS:.2f} s: it is slow, or its server is gone"
        )
    if environment.checkpoints is not None:
        yield f"checkpoints in {environment.checkpoints}"


def _software(found: Mapping[str, str]) -> str:
    words = [f"Python {platform.python_version()}"]
    for name in DISTRIBUTIONS:
        if name in found:
            words.append(f"{name.replace('_', '-')} {found[name]}")
        if name == "torch" and name in found:
            words.append(f"CUDA {versions.torch_cuda() or 'none'}")
            words += [
                f"{called} {found[package]}"
                for package, called in versions.LIBRARIES.items()
                if package in found
            ]
    return ", ".join(words)


def _hosts(environment: Environment) -> str:
    """The hosts in the order of their ranks, and which of them train together."""
    hosts = environment.cluster.hosts
    names = ", ".join(hosts[:_MANY_HOSTS]) + (", ..." if len(hosts) > _MANY_HOSTS else "")
    groups = environment.cluster.groups
    if len(groups) > 1:
        sizes = (f"{name} ({len(environment.cluster.group_hosts(name))})" for name in groups)
        names += f"; instance groups {', '.join(sizes)}, this is {environment.cluster.group}"
    return f"hosts {names}"


def warnings(environment: Environment) -> Iterator[str]:
    """What will most likely end the job later, in a way that is harder to understand."""
    yield from _gpu_warnings(environment)
    shm = space(SHM, total=True)
    if shm is not None and shm < SMALL_SHM_BYTES:
        yield (
            f"{SHM} has {shm / 2**20:.0f} MiB: DataLoader workers that need more end in a bus "
            "error; use num_workers=0 or byoc_training.data.loader, or locally --shm-size=2g"
        )
    root = environment.paths.root
    left = space(root, total=False)
    if left is not None and left < LITTLE_SPACE_BYTES:
        yield (
            f"{root} has {sized(left)} free: checkpoints and the model may not fit; raise "
            "VolumeSizeInGB"
        )


def _gpu_warnings(environment: Environment) -> Iterator[str]:
    """Of GPUs that are asked for: by the instance type, by a variable, by the number of ranks."""
    devices, cluster = environment.devices, environment.cluster
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name for name in (visible or "").split(",") if name.strip() not in ("", "-1")]
    if not devices.gpus:
        if _GPU_TYPE.match(_instance_type(environment)):
            yield (
                f"{_instance_type(environment)} has GPUs and none is visible here: the program "
                "runs on the CPU, if at all; locally, start the container with --gpus all"
            )
        elif named:
            yield (
                f"CUDA_VISIBLE_DEVICES={visible} asks for GPUs and none is visible here: the "
                "program runs on the CPU, if at all; use an instance type with GPUs, or locally "
                "start the container with --gpus all"
            )
        return
    if visible is not None and not named:
        yield (
            f"CUDA_VISIBLE_DEVICES={visible!r} hides all {len(devices.gpus)} GPUs from the "
            "program; leave it out of the request to use them"
        )
    cuda = versions.torch_cuda()
    oldest = _OLDEST_DRIVER.get(cuda.split(".")[0]) if cuda else None
    old = oldest is not None and devices.driver and int(devices.driver.split(".")[0]) < oldest
    if old and not _compatibility(os.environ):
        yield (
            f"the NVIDIA driver {devices.driver} is too old for this image's CUDA {cuda} (driver "
            f"{oldest} or newer): torch will not see the GPUs; use another instance type, or an "
            "image of an older CUDA"
        )
    asked = environment.reserved_text(PROCESSES) or ""
    if asked.isdecimal() and int(asked) > len(devices.gpus):
        yield (
            f"{PROCESSES} is {asked} and this host has {len(devices.gpus)} GPUs: NCCL refuses two "
            "ranks on one GPU; leave it out for one rank a GPU"
        )
    if devices.efa and len(environment.distribution_hosts) > 1 and not _has_plugin(os.environ):
        yield (
            f"{devices.efa} EFA devices and no NCCL plug-in for them (libnccl-net.so of "
            f"aws-ofi-nccl): NCCL uses plain TCP on {cluster.interface}, many times slower; "
            "install it with AWS's EFA installer (--skip-kmod) in an image on top of this one"
        )


def _instance_type(environment: Environment) -> str:
    """The host's own, or that of its instance group where an old platform leaves it out."""
    cluster = environment.cluster
    group = cluster.groups.get(cluster.group, {})
    named = "current_instance_type" in cluster.raw
    return cluster.instance_type if named else str(group.get("instance_type", "local"))


def _compatibility(environ: Mapping[str, str]) -> bool:
    """Whether the image has put CUDA's forward-compatibility libraries first."""
    first = environ.get("LD_LIBRARY_PATH", "").split(":")[0]
    return bool(first) and Path(first, "libcuda.so.1").exists()


def _has_plugin(environ: Mapping[str, str]) -> bool:
    named = environ.get("NCCL_NET_PLUGIN", "")
    searched = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    return bool(named) or any(
        next(Path(folder).glob("libnccl-net*.so*"), None) is not None
        for folder in (*searched, *_PLUGIN_FOLDERS)
    )


def free(path: str | os.PathLike[str]) -> str:
    """Free space for people."""
    size = space(path, total=False)
    return "nothing" if size is None else sized(size)


def space(path: str | os.PathLike[str], *, total: bool) -> int | None:
    """Bytes of a path's file system, or None: it has none, or does not answer.

    Args:
        path: Anything on it.
        total: All of it, rather than what is free.
    """
    status = Look(lambda: os.statvfs(path)).answer(time.monotonic() + SPACE_SECONDS)
    if status is None:
        return None
    return (status.f_blocks if total else status.f_bavail) * status.f_frsize
