"""Endpoints taken away, with what belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc import kinds
from byoc.errors import NotFoundError
from byoc.report import SILENT

if TYPE_CHECKING:
    from byoc.aws import Aws
    from byoc.report import Report


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
