"""From an endpoint configuration and its models to what is started.

A plan is kept with the endpoint: its configuration and models may be deleted while it serves.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc.local.store import Document

#: A plan of one variant: JSON.
Plan = dict[str, Any]


def plans(config: Mapping[str, Any], model: Callable[[str], Document]) -> list[Plan]:
    """One for each production variant.

    Args:
        config: The endpoint configuration.
        model: Finds a model, or raises AWS's error.

    Raises:
        AwsError: What it wants is not run locally.
    """
    if config.get("ShadowProductionVariants"):
        raise invalid("Shadow variants are not run locally.")
    return [_plan(variant, model) for variant in config["ProductionVariants"]]


def container_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's one container.

    Raises:
        AwsError: It has several, or none that can be run.
    """
    containers = containers_of(model)
    if len(containers) > 1:
        raise invalid(
            f"Model {model['ModelName']} has {len(containers)} containers; batch transform with "
            "an inference pipeline is not done locally."
        )
    return containers[0]


def containers_of(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A model's containers.

    Raises:
        AwsError: One cannot be run.
    """
    containers = [*model.get("Containers", ())] or [model.get("PrimaryContainer") or {}]
    for container in containers:
        _check(model, container)
        if len(containers) > 1 and container.get("Mode") == "MultiModel":
            raise invalid("A multi-model container beside others is not run locally.")
    return containers


def _check(model: Mapping[str, Any], container: Mapping[str, Any]) -> None:
    if not container.get("Image"):
        raise invalid(
            f"Model {model['ModelName']} has no Image; model packages are not run locally."
        )
    if container.get("AdditionalModelDataSources"):
        raise invalid("AdditionalModelDataSources are not run locally.")
    if container.get("Mode") == "MultiModel" and not container.get("ModelDataUrl"):
        raise invalid(
            f"Model {model['ModelName']} with Mode MultiModel needs a ModelDataUrl: a prefix."
        )


def cores() -> int:
    """As many containers of a variant are started at most."""
    return max(1, len(os.sched_getaffinity(0)))


def _plan(variant: Mapping[str, Any], model: Callable[[str], Document]) -> Plan:
    name = variant.get("ModelName")
    if not name:
        raise invalid(
            f"Variant {variant['VariantName']} has no ModelName; inference components are not "
            "run locally."
        )
    document = model(name)
    plan: Plan = {
        "VariantName": variant["VariantName"],
        "Weight": variant.get("InitialVariantWeight", 1.0),
        "Count": variant.get("InitialInstanceCount", 1),
        "Containers": containers_of(document),
        "Direct": document.get("InferenceExecutionConfig", {}).get("Mode") == "Direct",
        "InstanceType": variant.get("InstanceType", ""),
        "Serverless": variant.get("ServerlessConfig"),
    }
    if seconds := variant.get("ContainerStartupHealthCheckTimeoutInSeconds"):
        plan["StartSeconds"] = seconds
    return plan
