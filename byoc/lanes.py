"""The two images, and the releases of CUDA that they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["training", "inference"]
KINDS: tuple[Kind, ...] = ("training", "inference")


@dataclass(frozen=True)
class Lane:
    """A release of CUDA with the PyTorch that is built on it.

    Attributes:
        name: e.g. ``cu128``; names the lock files.
        cuda_version: of the libraries in PyTorch's wheels.
        minimum_driver: NVIDIA driver branch from which CUDA's minor-version compatibility holds
            (NVIDIA's CUDA compatibility guide: 12.x from 525, 13.x from 580).
        base_image: the default base.
    """

    name: str
    cuda_version: str
    minimum_driver: str
    base_image: str


LANES = {
    lane.name: lane
    for lane in (
        Lane("cu128", "12.8", "525", "nvidia/cuda:12.8.1-base-ubuntu24.04"),
        Lane("cu130", "13.0", "580", "nvidia/cuda:13.0.1-base-ubuntu24.04"),
    )
}


def tags(kind: Kind, lane: str, name: str) -> tuple[str, ...]:
    """The names of an image, the most exact first."""
    suffix = "" if lane == "cu128" else f"-{lane}"
    return tuple(f"sagemaker-byoc-{kind}:{tag}{suffix}" for tag in (name, "latest"))
