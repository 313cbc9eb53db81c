"""What an image says of itself: labels, platform and digest, from the engine here or from ECR."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from byoc.errors import ByocError
from byoc.hosts import Cuda, cuda_of
from byoc.lanes import LANES
from byoc.partitions import ECR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.aws import Aws

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Facts:
    """What is known of an image.

    Attributes:
        source: ``engine``, ``ECR``, ``name`` or ``nothing``: who says so.
        labels: Of its configuration.
        architecture: Such as ``amd64``; None when not known.
        digest: ``sha256:…`` of its manifest in the registry; None when not known.
        compressed_bytes: Of its layers in the registry; None when not known.
    """

    source: str
    labels: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    digest: str | None = None
    compressed_bytes: int | None = None

    @property
    def cuda(self) -> Cuda | None:
        """The CUDA that it needs, when known."""
        return cuda_of(self.labels)


def here(image: str) -> Facts:
    """What the engine of this machine says, else what the name does; nothing is sent anywhere."""
    found = _inspected(image)
    if found is not None:
        config = found.get("Config") or {}
        digests = [one.partition("@")[2] for one in found.get("RepoDigests") or ()]
        return Facts(
            "engine", config.get("Labels") or {}, found.get("Architecture"),
            digests[0] if len(digests) == 1 else None,
        )  # fmt: skip
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    for lane in LANES.values():
        if tag.endswith(f"-{lane.name}"):
            labels = {
                "sagemaker-byoc.cuda.version": lane.cuda_version,
                "sagemaker-byoc.cuda.minimum-driver": lane.minimum_driver,
            }
            return Facts("name", labels)
    return Facts("nothing")


def in_registry(aws: Aws, image: str) -> Facts:
    """What ECR says; nothing when the image is elsewhere or may not be looked at."""
    name = ECR.fullmatch(image)
    if not name or aws.dry_run:
        return Facts("nothing")
    chosen = (
        {"imageDigest": name["digest"]} if name["digest"] else {"imageTag": name["tag"] or "latest"}
    )
    repository = {"registryId": name["account"], "repositoryName": name["repository"]}
    try:
        answer = aws.call(
            "ecr",
            "BatchGetImage",
            {**repository, "imageIds": [chosen], "acceptedMediaTypes": [DOCKER_MANIFEST]},
        )
        image_there = answer["images"][0]
        manifest = json.loads(image_there["imageManifest"])
        digest = str(image_there["imageId"]["imageDigest"])
    except (ByocError, LookupError, ValueError):
        return Facts("nothing")
    layers = manifest.get("layers") or ()
    size = sum(int(layer.get("size", 0)) for layer in layers) or None
    config: dict[str, Any] = {}
    try:
        link = aws.call(
            "ecr",
            "GetDownloadUrlForLayer",
            {**repository, "layerDigest": manifest["config"]["digest"]},
        )["downloadUrl"]
        with urllib.request.urlopen(link, timeout=10) as response:  # noqa: S310 - AWS's own link
            config = json.loads(response.read(4 << 20))
    except (ByocError, LookupError, TypeError, ValueError, OSError):
        pass
    labels = (config.get("config") or {}).get("Labels") or {}
    return Facts("ECR", labels, config.get("architecture"), digest, size)


def candidates(image: str) -> list[str]:
    """The names under which an engine may have it: as given, and without ECR's host."""
    name = ECR.fullmatch(image)
    if not name:
        return [image]
    return [image, f"{name['repository']}:{name['tag'] or 'latest'}"]


def _inspected(image: str) -> dict[str, Any] | None:
    client = engine()
    if client is None:
        return None
    import docker  # noqa: PLC0415 - heavy

    try:
        for candidate in candidates(image):
            try:
                found: dict[str, Any] = client.api.inspect_image(candidate)
            except docker.errors.ImageNotFound:
                continue
            return found
    except (docker.errors.DockerException, OSError):
        return None
    finally:
        client.close()
    return None


def engine(timeout_seconds: int = 5) -> Any | None:
    """The Docker engine of this machine; None when none answers."""
    import docker  # noqa: PLC0415 - heavy

    client = None
    try:
        client = docker.from_env(timeout=timeout_seconds)
        client.ping()
    except (docker.errors.DockerException, OSError):
        if client is not None:
            client.close()
        return None
    return client
