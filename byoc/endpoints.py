"""Endpoints: model, configuration, endpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from byoc import deployments, image_facts, kinds, models, settings, uploads, words
from byoc.deletion import composition
from byoc.errors import ByocError, RequestError
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.aws import Aws
    from byoc.deployments import Deployment, Variant
    from byoc.report import Report


@dataclass
class Endpoint:
    """An endpoint that has been asked for.

    Attributes:
        name: Its own.
        config: Its configuration's.
        models: Its models' names, by variant.
        images: The requested image's digest, by variant; None where nobody could tell.
        made: What was made for it, or may have been, ``(kind, name)``, the endpoint last.
        asked: Whether the endpoint itself was asked for.
        former: With an update: the configuration and the models that it replaces.
    """

    name: str
    config: str
    models: dict[str, str] = field(default_factory=dict)
    images: dict[str, str | None] = field(default_factory=dict)
    made: list[tuple[str, str]] = field(default_factory=list)
    asked: bool = False
    former: list[tuple[kinds.Kind, str]] = field(default_factory=list)


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
    later step is refused, or Ctrl-C comes.

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
        models.fits(deployment, one, facts[one.name])

    name = deployment.name or words.fresh_name(_stem(deployment))
    endpoint = Endpoint(name, config := words.fresh_name(_without_time(name)))
    full_names = {one.name: aws.image_uri(one.image) for one in own}
    archives = {one.name: models.archive(aws, deployment, one, may_create, report) for one in own}
    role = settings.role(aws, deployment.role) if own else ""
    asynchronous = _asynchronous(aws, deployment, name, may_create, report)
    try:
        variants = []
        for one in deployment.variants:
            model, ami = one.model, one.ami
            if model is None:
                known = models.completed(aws, full_names[one.name], facts[one.name])
                ami = models.fits(deployment, one, known)
                endpoint.images[one.name] = known.digest
                model = _model_name(deployment, one, config)
                # Before the call: its name is fresh, and Ctrl-C may come before the answer.
                endpoint.made.append((kinds.MODEL.name, model))
                models.create(aws, deployment, one, model, archives[one.name], role)
                report.say(f"model     {model}")
                if ami and not one.ami:
                    report.say(
                        f"          {one.instance_type} gets {ami}, as {models.cuda_words(known)}"
                    )
            endpoint.models[one.name] = model
            variants.append(_production(deployment, one, model, ami))
        request: dict[str, Any] = {"EndpointConfigName": config, "ProductionVariants": variants}
        if asynchronous:
            request["AsyncInferenceConfig"] = asynchronous
        _create(aws, endpoint, "endpoint-config", request, deployment)
        report.say(f"config    {config}")
        request = {"EndpointName": name, "EndpointConfigName": config}
        if deployment.update:
            endpoint.former = _former(aws, endpoint)
            endpoint.asked = True
            aws.call("sagemaker", "UpdateEndpoint", request)
        else:
            _create(aws, endpoint, "endpoint", request, deployment)
    except BaseException as error:  # Ctrl-C leaves as little behind as a refusal
        if not isinstance(error, ByocError):
            if deployment.update and endpoint.asked:
                raise  # it may be changing to what was made
            _look_again(aws, endpoint)
        _take_back(aws, endpoint)
        raise
    report.say(f"endpoint  {name}{' (update)' if deployment.update else ''}")
    return endpoint


def _former(aws: Aws, endpoint: Endpoint) -> list[tuple[kinds.Kind, str]]:
    """What an update leaves unused."""
    if aws.dry_run:
        return []
    still = {endpoint.name, *endpoint.models.values()}
    return [(kind, name) for kind, name in composition(aws, endpoint.name) if name not in still]


def _model_name(deployment: Deployment, one: Variant, config: str) -> str:
    name = config if len(deployment.variants) == 1 else f"{one.name[:20]}-{config}"
    return name[:63].rstrip("-")


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
    if of is not kinds.ENDPOINT:  # whose name may be another's
        endpoint.made.append((kind, request[of.member]))
    endpoint.asked = of is kinds.ENDPOINT
    try:
        aws.call("sagemaker", f"Create{of.noun}", models.tagged(request, deployment))
    except RequestError as error:
        if of is kinds.ENDPOINT and "already exist" in str(error):
            raise RequestError(
                f"there is an endpoint {endpoint.name} already; change it with --update, or give "
                "another --name"
            ) from error
        raise
    if of is kinds.ENDPOINT:
        endpoint.made.append((kind, endpoint.name))


def _look_again(aws: Aws, endpoint: Endpoint) -> None:
    """Find out whether the endpoint was made by a call whose answer was not waited for."""
    if not endpoint.asked or (kinds.ENDPOINT.name, endpoint.name) in endpoint.made:
        return
    try:
        found = aws.find("sagemaker", "DescribeEndpoint", {"EndpointName": endpoint.name}) or {}
    except ByocError:
        return
    if found.get("EndpointConfigName") == endpoint.config:  # and so is none that was there before
        endpoint.made.append((kinds.ENDPOINT.name, endpoint.name))


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
