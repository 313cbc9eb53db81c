"""What is to be deployed: variants of an endpoint, and what contradicts itself about them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import hosts, words
from byoc.errors import CombinationError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IMAGE = "sagemaker-byoc-inference:latest"
INSTANCE_TYPE = "ml.m5.large"
ONE_VARIANT = "AllTraffic"
#: Serverless limits (contract section 13).
SERVERLESS_MB = range(1024, 6145, 1024)
SERVERLESS_CONCURRENCY = 200
SERVERLESS_IMAGE_BYTES = 10 * 10**9


@dataclass(frozen=True)
class Variant:
    """A production variant: one model on some instances.

    Attributes:
        name: Its own.
        job: The training job that made the model.
        model_data: ``s3://….tar.gz``, or an archive here; exclusive with ``job``. Neither: the
            image brings its model along.
        model: A model that exists, in place of both and of the image.
        image: A full name, or one in this account's registry.
        instance_type: Such as ``ml.g5.xlarge``.
        instance_count: Of them.
        weight: Its share of the requests, beside the others' weights.
        ami: The InferenceAmiVersion; chosen when None.
    """

    name: str = ONE_VARIANT
    job: str | None = None
    model_data: str | None = None
    model: str | None = None
    image: str = IMAGE
    instance_type: str = INSTANCE_TYPE
    instance_count: int = 1
    weight: float = 1.0
    ami: str | None = None


@dataclass(frozen=True)
class Serverless:
    """An endpoint without instances.

    Attributes:
        memory_mb: 1024 to 6144 in steps of 1024.
        concurrency: Requests at a time, at most 200.
    """

    memory_mb: int = 4096
    concurrency: int = 5


@dataclass(frozen=True)
class Asynchronous:
    """An endpoint that takes requests from S3 and puts answers there.

    Attributes:
        output: ``s3://…``; None: in the bucket.
        concurrency: Requests at a time and instance; None: SageMaker's choice.
    """

    output: str | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Deployment:
    """An endpoint to be.

    Attributes:
        variants: At least one.
        name: Default: one that is not taken.
        role: An ARN or a name; found when None.
        bucket: Found when None.
        environment: Variables of the containers.
        serverless: No instances; for one variant.
        asynchronous: Requests and answers in S3.
        update: Whether an endpoint of this name is to be changed.
        tags: Of AWS.
    """

    variants: Sequence[Variant]
    name: str | None = None
    role: str | None = None
    bucket: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    serverless: Serverless | None = None
    asynchronous: Asynchronous | None = None
    update: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


def variant(text: str, usual: Variant) -> Variant:
    """A variant from ``NAME`` or ``NAME:key=value,key=value``; the rest is as usual.

    Raises:
        SettingsError: It is none.
    """
    name, _, rest = text.partition(":")
    found = {"name": words.checked_name(name)}
    given = words.pairs(filter(None, rest.split(",")), "setting of a variant", "weight=0.1")
    for key, value in given.items():
        member = key.replace("-", "_")
        if member == "name" or member not in Variant.__dataclass_fields__:
            keys = ", ".join(
                one.replace("_", "-") for one in Variant.__dataclass_fields__ if one != "name"
            )
            raise SettingsError(f"variant {name}: {key} means nothing here; there are {keys}")
        found[member] = value
    settings: dict[str, Any] = dict(found)
    # The model of a variant takes the place of the usual one.
    sources = ("job", "model_data", "model")
    if any(source in found for source in sources):
        settings = dict.fromkeys(sources, None) | settings
    try:
        if "weight" in found:
            settings["weight"] = float(found["weight"])
        if "instance_count" in found:
            settings["instance_count"] = int(found["instance_count"])
    except ValueError as error:
        raise SettingsError(f"variant {name}: {error}") from None
    return replace(usual, **settings)


def check(deployment: Deployment) -> None:
    """Raise where the wishes contradict each other or SageMaker's limits; sends nothing.

    Raises:
        SettingsError: They do.
        CombinationError: An image cannot start on its instance.
    """
    names = [one.name for one in deployment.variants]
    if not names:
        raise SettingsError("an endpoint needs a variant")
    for name in names:
        words.checked_name(name)
        if names.count(name) > 1:
            raise SettingsError(f"there are two variants {name}")
    if deployment.name is not None:
        words.checked_name(deployment.name)
    if deployment.update and deployment.name is None:
        raise SettingsError("--update needs the endpoint's name: --name NAME")
    for one in deployment.variants:
        _check_variant(one)
    if deployment.serverless is not None:
        _check_serverless(deployment, deployment.serverless)
    for one in deployment.variants:
        if one.image == IMAGE and not (one.job or one.model_data or one.model):
            raise SettingsError(
                f"variant {one.name} has no model, and the image {IMAGE} brings none along; give "
                "--job, --model-data or --model, or an --image of yours that has its model"
            )


def _check_variant(one: Variant) -> None:
    given = [source for source in (one.job, one.model_data, one.model) if source is not None]
    if len(given) > 1:
        raise SettingsError(
            f"variant {one.name} has its model from {' and from '.join(given)}; give one: --job, "
            "--model-data or --model"
        )
    if one.model_data and not one.model_data.startswith("s3://"):
        archive = Path(one.model_data).expanduser()
        if archive.is_dir():
            raise SettingsError(
                f"{archive} is a folder; pack it first: byoc package {archive} model.tar.gz"
            )
        if not archive.is_file():
            raise SettingsError(f"the model archive {archive} is not there; give a file or s3://…")
    if one.model_data and not re.search(r"\.(tar\.gz|tgz)$", one.model_data):
        raise SettingsError(f"{one.model_data} is no .tar.gz archive; see byoc package")
    if not (math.isfinite(one.weight) and one.weight >= 0) or one.instance_count < 1:
        raise SettingsError(
            f"variant {one.name}: the weight is a number of at least 0, the count at least 1"
        )
    hosts.check(one.instance_type, None)
    hosts.known(one.instance_type, "endpoints")


def _check_serverless(deployment: Deployment, wish: Serverless) -> None:
    if len(deployment.variants) > 1:
        raise CombinationError("a serverless endpoint has one variant; leave --variant out")
    if deployment.asynchronous is not None:
        raise CombinationError("an endpoint is --serverless or --async, not both")
    if deployment.variants[0].ami is not None:
        raise CombinationError("a serverless endpoint has no GPU and no --ami")
    if wish.memory_mb not in SERVERLESS_MB:
        raise SettingsError(f"--memory {wish.memory_mb}: expected 1024, 2048, … or 6144 (MB)")
    if not 1 <= wish.concurrency <= SERVERLESS_CONCURRENCY:
        raise SettingsError(f"--concurrency {wish.concurrency}: expected 1 to 200")
