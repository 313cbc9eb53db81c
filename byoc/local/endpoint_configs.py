"""Endpoint configurations: which models an endpoint has, on what, with which weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid
from byoc.local.kinds import ENDPOINT_CONFIG, MODEL
from byoc.local.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.actions import Action, Context
    from byoc.local.store import Document


class EndpointConfigs:
    """CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig."""

    def __init__(self, context: Context) -> None:
        self._shelf, self._models = Shelf(context, ENDPOINT_CONFIG), Shelf(context, MODEL)

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        return {
            "CreateEndpointConfig": self.create,
            "DescribeEndpointConfig": self.describe,
            "ListEndpointConfigs": self.page,
            "DeleteEndpointConfig": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep it, if its models exist and its variants make sense."""
        names = [variant["VariantName"] for variant in request["ProductionVariants"]]
        for name in names:
            if names.count(name) > 1:
                raise invalid(f"Production variant names must be unique; {name} is there twice.")
        for variant in request["ProductionVariants"]:
            self._check(variant)
        document = self._shelf.create(request)
        return {"EndpointConfigArn": document["EndpointConfigArn"]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        return self._shelf.get(request["EndpointConfigName"])

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        return self._shelf.page(request, "EndpointConfigs", None, _summary)

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget one; endpoints that came of it go on."""
        self._shelf.delete(request["EndpointConfigName"])
        return {}

    def recover(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""

    def _check(self, variant: dict[str, Any]) -> None:
        name = variant["VariantName"]
        if model := variant.get("ModelName"):
            self._models.get(model)
        serverless, kind = variant.get("ServerlessConfig"), variant.get("InstanceType")
        if serverless is None and kind is None:
            raise invalid(f"Variant {name} needs an InstanceType or a ServerlessConfig.")
        if serverless is not None and kind is not None:
            raise invalid(f"Variant {name} has both an InstanceType and a ServerlessConfig.")
        variant.setdefault("InitialVariantWeight", 1.0)
        if serverless is None:
            variant.setdefault("InitialInstanceCount", 1)


def _summary(document: Document) -> dict[str, Any]:
    keys = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
    return {key: document[key] for key in keys}
