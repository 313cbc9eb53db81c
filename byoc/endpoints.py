"""Endpoints: model, configuration, endpoint; waited for, verified, and taken away again."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import deployments, hosts, image_facts, kinds, settings, uploads, words
from byoc.errors import (
    ByocError,
    CombinationError,
    FailedError,
    NotFoundError,
    RequestError,
    SettingsError,
)
from byoc.jobs import AWS_SECONDS, LOCAL_SECONDS, tell
from byoc.logs import Logs
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.aws import Aws
    from byoc.deployments import Deployment, Variant
    from byoc.image_facts import Facts
    from byoc.report import Report

#: Within this an update has begun.
UPDATE_SECONDS = 60


@dataclass
class Endpoint:
    """An endpoint that has been asked for.

    Attributes:
        name: Its own.
        config: Its configuration's.
        models: Its models' names, by variant.
        images: The requested image's digest, by variant; None where nobody could tell.
        made: What was made for it, ``(kind, name)``, the endpoint last.
    """

    name: str
    config: str
    models: dict[str, str] = field(default_factory=dict)
    images: dict[str, str | None] = field(default_factory=dict)
    made: list[tuple[str, str]] = field(default_factory=list)


def deploy(
    aws: Aws,
    deployment: Deployment,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> Endpoint:
    """Make models, a configuration and an endpoint; `wait` waits until it serves.

    Combinations that cannot start are refused before anything is made, and, where the engine of
    this machine knows the image, before anything is sent. What was made is taken away again when a
    later step is refused.

    Args:
        aws: Where.
        deployment: What.
        may_create: Asked whether the account's default bucket may be made.
        report: Is told.

    Raises:
        CombinationError: An image cannot start on its instance.
        SettingsError: Something is wrong or missing.
        ByocError: AWS refuses.
    """
    deployments.check(deployment)
    own = [one for one in deployment.variants if one.model is None]
    facts = {one.name: image_facts.here(one.image) for one in own}
    for one in own:
        _fits(deployment, one, facts[one.name])

    name = deployment.name or words.fresh_name(_stem(deployment))
    endpoint = Endpoint(name, config := words.fresh_name(_without_time(name)))
    archives = {one.name: _archive(aws, deployment, one, may_create, report) for one in own}
    role = settings.role(aws, deployment.role) if own else ""
    asynchronous = _asynchronous(aws, deployment, name, may_create, report)
    try:
        variants = []
        for one in deployment.variants:
            model, ami = one.model, one.ami
            if model is None:
                image = aws.image_uri(one.image)
                known = _completed(aws, image, facts[one.name])
                ami = _fits(deployment, one, known)
                endpoint.images[one.name] = known.digest
                model = _make_model(aws, deployment, endpoint, one, image, archives[one.name], role)
                report.say(f"model     {model}")
                if ami and not one.ami:
                    report.say(f"          {one.instance_type} gets {ami}, as {_cuda(known)}")
            endpoint.models[one.name] = model
            variants.append(_production(deployment, one, model, ami))
        request: dict[str, Any] = {"EndpointConfigName": config, "ProductionVariants": variants}
        if asynchronous:
            request["AsyncInferenceConfig"] = asynchronous
        _create(aws, endpoint, "endpoint-config", request, deployment)
        report.say(f"config    {config}")
        request = {"EndpointName": name, "EndpointConfigName": config}
        if deployment.update:
            aws.call("sagemaker", "UpdateEndpoint", request)
        else:
            _create(aws, endpoint, "endpoint", request, deployment)
    except ByocError:
        _take_back(aws, endpoint)
        raise
    report.say(f"endpoint  {name}{' (update)' if deployment.update else ''}")
    return endpoint


def wait(
    aws: Aws, name: str, *, config: str | None = None, report: Report = SILENT
) -> dict[str, Any]:
    """Wait until the endpoint serves, and tell its states meanwhile.

    Args:
        aws: Where.
        name: The endpoint's.
        config: The configuration that it is to serve; any when None.
        report: Is told.

    Returns:
        What the API says of it.

    Raises:
        FailedError: It does not come up, or an update was taken back; says the reason.
        ByocError: AWS refuses.
    """
    started, seen = time.monotonic(), [""]
    reader = Logs(aws, kinds.ENDPOINT, name)
    while True:
        endpoint = kinds.describe(aws, kinds.ENDPOINT, name)
        status, seconds = str(endpoint["EndpointStatus"]), time.monotonic() - started
        if status != seen[-1]:
            seen.append(status)
            report.say(f"{status:<12} {seconds:6.1f} s")
        if status == "InService":
            if config is None or endpoint.get("EndpointConfigName") == config:
                return endpoint
            # An update that has not begun yet looks like one that is over.
            if len(seen) > 2 or seconds > UPDATE_SECONDS:
                raise FailedError(
                    f"the update of {name} failed: {_reason(endpoint)}; it serves as before"
                )
        elif status in kinds.ENDED:
            tell(reader, report)
            raise FailedError(
                f"the endpoint {name} failed: {_reason(endpoint)}; its log: byoc logs {name}; take "
                f"it away: byoc delete {name}"
            )
        report.waiting(f"endpoint {name}: {status}, {seconds:.0f} s")
        time.sleep(LOCAL_SECONDS if aws.local else AWS_SECONDS)


def verify(endpoint: Endpoint, described: dict[str, Any]) -> list[str]:
    """Compare the digests of the images that run with the requested ones.

    Returns:
        A line for each variant: what runs, or why that cannot be told.

    Raises:
        FailedError: Another image runs.
    """
    lines = []
    for variant in described.get("ProductionVariants", ()):
        name = variant["VariantName"]
        wanted = endpoint.images.get(name)
        deployed = [str(one.get("ResolvedImage", "")) for one in variant.get("DeployedImages", ())]
        running = [image.partition("@")[2] for image in deployed if "@sha256:" in image]
        if not wanted or not running:
            whose = "the requested image" if not wanted else "the running image"
            lines.append(f"image of {name} not verified: the digest of {whose} is not known")
        elif wanted in running:
            lines.append(f"image of {name} verified: {wanted}")
        else:
            raise FailedError(
                f"variant {name} runs {', '.join(running)}, not the requested {wanted}: the tag "
                "was moved meanwhile; deploy again, or name the digest"
            )
    return lines


def delete(
    aws: Aws, name: str, *, with_models: bool = True, report: Report = SILENT
) -> list[tuple[str, str]]:
    """Delete an endpoint with its configuration and its models.

    Args:
        aws: Where.
        name: The endpoint's.
        with_models: Whether its models go as well.
        report: Is told of each.

    Returns:
        ``(kind, name)`` of what has been deleted.

    Raises:
        NotFoundError: There is no such endpoint.
        ByocError: AWS refuses.
    """
    parts = composition(aws, name)
    gone: list[tuple[str, str]] = []
    for kind, one in parts:
        if kind is kinds.MODEL and not with_models:
            continue
        try:
            aws.call("sagemaker", f"Delete{kind.noun}", {kind.member: one})
        except NotFoundError:
            continue
        gone.append((kind.name, one))
        report.say(f"deleted {kind.words} {one}")
    return gone


def composition(aws: Aws, name: str) -> list[tuple[kinds.Kind, str]]:
    """An endpoint, its configuration and its models, in the order in which they are deleted.

    Raises:
        NotFoundError: There is no such endpoint.
        ByocError: AWS refuses.
    """
    if aws.dry_run:
        config = f"<EndpointConfigName of {name}>"
        models = [f"<ModelName of {config}>"]
        kinds.describe(aws, kinds.ENDPOINT, name)
        kinds.describe(aws, kinds.ENDPOINT_CONFIG, config)
    else:
        config = str(kinds.describe(aws, kinds.ENDPOINT, name).get("EndpointConfigName") or "")
        try:
            described = kinds.describe(aws, kinds.ENDPOINT_CONFIG, config) if config else {}
        except NotFoundError:
            described = {}
        models = [
            one["ModelName"]
            for one in described.get("ProductionVariants", ())
            if "ModelName" in one
        ]
    parts = [(kinds.ENDPOINT, name)]
    if config:
        parts.append((kinds.ENDPOINT_CONFIG, config))
    return parts + [(kinds.MODEL, model) for model in dict.fromkeys(models)]


def cuda_of(aws: Aws, one: Variant) -> hosts.Cuda | None:
    """The CUDA of a variant's image, when known."""
    return _completed(aws, aws.image_uri(one.image), image_facts.here(one.image)).cuda


def make_model(
    aws: Aws,
    deployment: Deployment,
    name: str,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> str:
    """Make the model of a deployment's one variant, and nothing else.

    Returns:
        Its name.

    Raises:
        SettingsError: Something is wrong or missing.
        ByocError: AWS refuses.
    """
    (one,) = deployment.variants
    archive = _archive(aws, deployment, one, may_create, report)
    role = settings.role(aws, deployment.role)
    made = Endpoint(name, name)
    model = _make_model(aws, deployment, made, one, aws.image_uri(one.image), archive, role)
    report.say(f"model     {model}")
    return model


def _fits(deployment: Deployment, one: Variant, facts: Facts) -> str | None:
    """The InferenceAmiVersion; raises where the image cannot start."""
    if deployment.serverless is not None:
        size = facts.compressed_bytes
        if size and size > deployments.SERVERLESS_IMAGE_BYTES:
            raise CombinationError(
                f"{one.image} has {size / 1e9:.1f} GB; a serverless endpoint takes at most 10 GB"
            )
        return None
    if facts.architecture:
        hosts.check(one.instance_type, facts.cuda, facts.architecture)
    return hosts.inference_ami(one.instance_type, facts.cuda, one.ami)


def _completed(aws: Aws, image: str, facts: Facts) -> Facts:
    """What the registry says, and what only the engine knows."""
    if aws.local:
        return facts
    there = image_facts.in_registry(aws, image)
    if there.source == "nothing":
        return image_facts.Facts(facts.source, facts.labels, facts.architecture)
    return image_facts.Facts(
        there.source,
        there.labels or facts.labels,
        there.architecture or facts.architecture,
        there.digest,
        there.compressed_bytes,
    )


def _cuda(facts: Facts) -> str:
    cuda = facts.cuda
    return f"CUDA {cuda.version} needs driver {cuda.minimum_driver}" if cuda else "you asked for it"


def _archive(
    aws: Aws,
    deployment: Deployment,
    one: Variant,
    may_create: Callable[[str], bool],
    report: Report,
) -> str | None:
    """The address of the variant's model archive; None when the image brings its own model."""
    if one.job is not None:
        described = kinds.describe(aws, kinds.TRAINING, one.job)
        if aws.dry_run:
            return f"s3://<S3ModelArtifacts of {one.job}>/model.tar.gz"
        status = described["TrainingJobStatus"]
        if status not in ("Completed", "Stopped"):
            raise SettingsError(f"the training job {one.job} is {status} and has no model (yet)")
        artifacts = (described.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
        if not artifacts:
            raise SettingsError(f"the training job {one.job} ({status}) has left no model")
        return str(artifacts)
    if one.model_data is None or one.model_data.startswith("s3://"):
        return one.model_data
    bucket = settings.bucket(aws, deployment.bucket, may_create=may_create, report=report)
    archive = Path(one.model_data).expanduser()
    return uploads.upload(aws, archive, bucket, "models", title=archive.name, report=report)


def _asynchronous(
    aws: Aws,
    deployment: Deployment,
    name: str,
    may_create: Callable[[str], bool],
    report: Report,
) -> dict[str, Any] | None:
    wish = deployment.asynchronous
    if wish is None:
        return None
    output = wish.output
    if output is None:
        bucket = settings.bucket(aws, deployment.bucket, may_create=may_create, report=report)
        output = f"s3://{bucket}/{uploads.PREFIX}/async/{name}"
    failures = output.rstrip("/") + "-failures"
    config: dict[str, Any] = {"OutputConfig": {"S3OutputPath": output, "S3FailurePath": failures}}
    if wish.concurrency is not None:
        config["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": wish.concurrency}
    return config


def _make_model(
    aws: Aws,
    deployment: Deployment,
    endpoint: Endpoint,
    one: Variant,
    image: str,
    archive: str | None,
    role: str,
) -> str:
    container: dict[str, Any] = {"Image": image}
    if archive:
        container["ModelDataUrl"] = archive
    if deployment.environment:
        container["Environment"] = dict(deployment.environment)
    name = (
        endpoint.config if len(deployment.variants) == 1 else f"{one.name[:20]}-{endpoint.config}"
    )
    name = name[:63].rstrip("-")
    request = {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": role}
    _create(aws, endpoint, "model", request, deployment)
    return name


def _production(
    deployment: Deployment, one: Variant, model: str, ami: str | None
) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": one.name, "ModelName": model}
    if deployment.serverless is not None:
        variant["ServerlessConfig"] = {
            "MemorySizeInMB": deployment.serverless.memory_mb,
            "MaxConcurrency": deployment.serverless.concurrency,
        }
        return variant
    variant |= {
        "InstanceType": one.instance_type,
        "InitialInstanceCount": one.instance_count,
        "InitialVariantWeight": one.weight,
    }
    if ami:
        variant["InferenceAmiVersion"] = ami
    return variant


def _create(
    aws: Aws, endpoint: Endpoint, kind: str, request: dict[str, Any], deployment: Deployment
) -> None:
    of = kinds.KINDS[kind]
    if deployment.tags:
        tags = [{"Key": key, "Value": value} for key, value in deployment.tags.items()]
        request = {**request, "Tags": tags}
    try:
        aws.call("sagemaker", f"Create{of.noun}", request)
    except RequestError as error:
        if of is kinds.ENDPOINT and "already exist" in str(error):
            raise RequestError(
                f"there is an endpoint {endpoint.name} already; change it with --update, or give "
                "another --name"
            ) from error
        raise
    endpoint.made.append((kind, request[of.member]))


def _take_back(aws: Aws, endpoint: Endpoint) -> None:
    """Delete what was made, the last first; what cannot be deleted is left."""
    for kind, name in reversed(endpoint.made):
        try:
            aws.call(
                "sagemaker", f"Delete{kinds.KINDS[kind].noun}", {kinds.KINDS[kind].member: name}
            )
        except ByocError:  # noqa: PERF203 - a handful
            continue


def _without_time(name: str) -> str:
    """The name without what `words.fresh_name` has put behind it."""
    return re.sub(r"-\d{8}-\d{6}-\d{3}$", "", name)


def _stem(deployment: Deployment) -> str:
    first = deployment.variants[0]
    return (
        _without_time(first.job or "")
        or first.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    )


def _reason(endpoint: dict[str, Any]) -> str:
    return " ".join(str(endpoint.get("FailureReason") or "no reason is given").split())
