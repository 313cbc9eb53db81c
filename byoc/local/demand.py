"""What the instances of a job have, and what this machine has: who may run beside whom."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc import hosts
from byoc.errors import CombinationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GIB = 2**30
#: GiB for each vCPU by the family's first letter: compute, memory and GPU instances; the general
#: purpose ones have 4 (AWS's pages of its instance types).
_GIB_A_CORE = {"c": 2, "r": 8, "x": 8, "p": 8}
_SIZE = re.compile(r"(?P<times>\d*)(?P<word>medium|large|xlarge|metal)")


@dataclass(frozen=True)
class Demand:
    """Cores, memory and GPUs, of a job or of the machine.

    Attributes:
        cores: vCPUs.
        memory_bytes: All of it.
        gpu: Whether there are NVIDIA GPUs: a job with them takes all that the machine has.
    """

    cores: int = 0
    memory_bytes: int = 0
    gpu: bool = False


def of(request: Mapping[str, Any]) -> Demand:
    """What the instances of a Create request have together."""
    cores = memory = 0
    gpu = False
    for instance_type, count in _instances(request):
        each, gib = size(instance_type)
        cores += count * each
        memory += count * each * gib * GIB
        gpu = gpu or _has_gpu(instance_type)
    return Demand(cores, memory, gpu)


def size(instance_type: str) -> tuple[int, int]:
    """vCPUs, and GiB of memory for each, told from the name: ``ml.m5.2xlarge`` has 8 and 4."""
    *_, family, words = instance_type.split(".")
    found = _SIZE.fullmatch(words)
    gib = _GIB_A_CORE.get(family[:1], 4)
    if found is None:
        return 2, gib
    cores = {"medium": 2, "large": 2, "xlarge": 4, "metal": 96}[found["word"]]
    return cores * int(found["times"] or 1), gib


def machine() -> Demand:
    """What this one has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Demand(len(os.sched_getaffinity(0)), memory)


def fit(jobs: Iterable[Demand], into: Demand) -> bool:
    """Whether the jobs have room beside each other; one alone always has."""
    together = [*jobs]
    return len(together) <= 1 or (
        sum(job.cores for job in together) <= into.cores
        and sum(job.memory_bytes for job in together) <= into.memory_bytes
        and sum(job.gpu for job in together) <= 1
    )


def _instances(request: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    resources = (
        request.get("ResourceConfig")
        or request.get("ProcessingResources", {}).get("ClusterConfig")
        or request.get("TransformResources")
        or {}
    )
    for one in resources.get("InstanceGroups") or [resources]:
        if "InstanceType" in one:
            yield one["InstanceType"], int(one.get("InstanceCount", 1))


def _has_gpu(instance_type: str) -> bool:
    try:
        return hosts.has_gpu(instance_type)
    except CombinationError:
        return False
