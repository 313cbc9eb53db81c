"""Which image starts on which instance: processors, GPUs, drivers (contract section 14)."""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc.errors import CombinationError
from byoc.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The driver branch of hosting instances by family, where no InferenceAmiVersion is given.
DEFAULT_DRIVERS = {
    "p4d": 470, "p4de": 470, "g4dn": 470, "g5": 470,
    "p5": 535, "g6": 535, "g6e": 535,
    "p5e": 550, "p5en": 550,
    "p6-b200": 580, "p6-b300": 580, "g7": 580, "g7e": 580,
}  # fmt: skip
#: The driver branch of each InferenceAmiVersion, the oldest first.
AMI_DRIVERS = {
    "al2-ami-sagemaker-inference-gpu-2": 535,
    "al2-ami-sagemaker-inference-gpu-2-1": 535,
    "al2-ami-sagemaker-inference-gpu-3-1": 550,
    "al2023-ami-sagemaker-inference-gpu-4-1": 580,
}
#: The versions that are chosen from: those that leave the image's own libraries alone, and of
#: these the ones whose driver branch NVIDIA still maintains or has maintained longest.
CHOICES = ("al2-ami-sagemaker-inference-gpu-3-1", "al2023-ami-sagemaker-inference-gpu-4-1")
#: GPU families whose GPUs CUDA 13 has no code for any more (Kepler, Volta).
BEFORE_CUDA_13 = ("p2", "p3", "p3dn")
#: Processors that run arm64 programs: Graviton, and Grace beside the GPUs of p6e-gb200.
_ARM64 = re.compile(r"[a-z]+\d+g[a-z]*|p6e-gb200")
_GPU = re.compile(r"[pg]\d.*")
_ACCELERATOR = re.compile(r"(inf|trn|dl)\d.*")

#: What instances are for, with the shape of botocore's model that has their types.
USES = {
    "training": "TrainingInstanceType",
    "endpoints": "ProductionVariantInstanceType",
    "processing": "ProcessingInstanceType",
    "transforms": "TransformInstanceType",
}

LABEL_CUDA, LABEL_DRIVER = "sagemaker-byoc.cuda.version", "sagemaker-byoc.cuda.minimum-driver"


@dataclass(frozen=True)
class Cuda:
    """What an image needs.

    Attributes:
        version: Of CUDA, such as ``12.8``.
        minimum_driver: The driver branch from which it runs, such as 525.
    """

    version: str
    minimum_driver: int


def cuda_of(labels: Mapping[str, str]) -> Cuda | None:
    """What an image's labels say; None when they say nothing."""
    version = labels.get(LABEL_CUDA, "")
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        return None
    driver = labels.get(LABEL_DRIVER, "")
    known = next((lane for lane in LANES.values() if lane.cuda_version == version), None)
    if driver.isdigit():
        return Cuda(version, int(driver))
    if known:
        return Cuda(version, int(known.minimum_driver))
    return Cuda(version, 580 if int(version.split(".")[0]) >= 13 else 525)


def family(instance_type: str) -> str:
    """``g5`` of ``ml.g5.xlarge``.

    Raises:
        CombinationError: It is no instance type.
    """
    found = re.fullmatch(r"ml\.([a-z0-9-]+)\.([a-z0-9-]+)", instance_type)
    if not found:
        raise CombinationError(
            f"{instance_type!r} is no instance type; expected one such as ml.m5.large"
        )
    return found[1]


def known(instance_type: str, use: str) -> None:
    """Raise where SageMaker has no such instance for something, as far as botocore knows.

    Args:
        instance_type: Such as ``ml.m5.large``.
        use: One of `USES`.

    Raises:
        CombinationError: Says which may have been meant.
    """
    types = instance_types(use)
    if instance_type in types:
        return
    near = difflib.get_close_matches(instance_type, types, 1)
    meant = f"did you mean {near[0]}?" if near else "there is ml.m5.large, for one"
    raise CombinationError(
        f"{instance_type} is no instance type for {use}; {meant} (Where it is newer than the "
        "boto3 here: pip install --upgrade boto3)"
    )


@functools.cache
def instance_types(use: str) -> tuple[str, ...]:
    """Those that SageMaker has for something, one of `USES`."""
    from botocore import session  # noqa: PLC0415 - heavy

    model = session.get_session().get_service_model("sagemaker")
    return tuple(model.shape_for(USES[use]).metadata["enum"])


def has_gpu(instance_type: str) -> bool:
    """Whether the instance has NVIDIA GPUs."""
    return bool(_GPU.fullmatch(family(instance_type)))


def check(instance_type: str, cuda: Cuda | None, architecture: str = "amd64") -> None:
    """Raise where an image cannot start on an instance, whatever its driver.

    Raises:
        CombinationError: Says why, and what would start.
    """
    of = family(instance_type)
    if _ACCELERATOR.fullmatch(of):
        raise CombinationError(
            f"{instance_type} has no NVIDIA GPU but an accelerator of another kind, which the "
            "image has no libraries for; use ml.g5.xlarge or a CPU such as ml.m5.large"
        )
    host = "arm64" if _ARM64.fullmatch(of) else "amd64"
    if host != architecture:
        other = "ml.m5.large" if host == "arm64" else "an instance with Graviton"
        raise CombinationError(
            f"the image is linux/{architecture} and {instance_type} runs linux/{host}: it would "
            f"end with 'exec format error'; use {other}, or build the image for {host}"
        )
    if cuda and of in BEFORE_CUDA_13 and int(cuda.version.split(".")[0]) >= 13:
        raise CombinationError(
            f"CUDA {cuda.version} has no code for the GPUs of {instance_type}; build with "
            "make build LANE=cu128, or use ml.g4dn.xlarge or newer"
        )


def inference_ami(instance_type: str, cuda: Cuda | None, given: str | None = None) -> str | None:
    """The InferenceAmiVersion that the image needs there.

    Args:
        instance_type: Of the endpoint.
        cuda: What the image needs; None where it is not known.
        given: The version that the user wants.

    Returns:
        None where the instance's default will do, or nothing is known.

    Raises:
        CombinationError: The image cannot start there.
    """
    check(instance_type, cuda)
    if given is not None:
        if given not in AMI_DRIVERS and "neuron" not in given:
            raise CombinationError(
                f"{given} is no InferenceAmiVersion known here; there are {', '.join(AMI_DRIVERS)}"
            )
        driver = AMI_DRIVERS.get(given, 0)
        if cuda and has_gpu(instance_type) and driver < cuda.minimum_driver:
            raise CombinationError(
                f"{given} has driver {driver} and CUDA {cuda.version} needs {cuda.minimum_driver} "
                "or newer: the container would not start; leave --ami out, and one that fits is "
                "chosen"
            )
        return given
    if cuda is None or not has_gpu(instance_type):
        return None
    if DEFAULT_DRIVERS.get(family(instance_type), 0) >= cuda.minimum_driver:
        return None
    for ami in CHOICES:
        if AMI_DRIVERS[ami] >= cuda.minimum_driver:
            return ami
    raise CombinationError(
        f"CUDA {cuda.version} needs driver {cuda.minimum_driver}, and no InferenceAmiVersion has "
        "it; build with make build LANE=cu128"
    )
