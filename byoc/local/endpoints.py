"""Endpoints: containers that really serve, from their first ping to their last request."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from byoc.local.endpoint_work import EndpointWork
from byoc.local.faults import AwsError, invalid, limit_exceeded
from byoc.local.hosting.plans import plans
from byoc.local.kinds import ENDPOINT, ENDPOINT_CONFIG, MODEL
from byoc.local.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc.local.actions import Action, Context
    from byoc.local.clients import Clients
    from byoc.local.hosting.live import Live
    from byoc.local.journal import Journals
    from byoc.local.store import Document

#: Endpoints that are created, updated or deleted at the same time.
MOST_AT_WORK = 16
IN_PROGRESS = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


class Endpoints:
    """Create, Describe, List, Update, DeleteEndpoint and UpdateEndpointWeightsAndCapacities.

    Args:
        context: What all resources share.
        runner: ``auto``, ``docker`` or ``process``.
        log: The server's own.
        clients: Of S3 and CloudWatch Logs.
        journals: Where containers' output goes.
    """

    def __init__(
        self,
        context: Context,
        runner: str,
        log: Callable[[str], None],
        clients: Clients,
        journals: Journals,
    ) -> None:
        self._shelf = Shelf(context, ENDPOINT)
        self._configs, self._models = Shelf(context, ENDPOINT_CONFIG), Shelf(context, MODEL)
        self._work = EndpointWork(context, runner, log, clients, journals, self._shelf)

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        return {
            "CreateEndpoint": self.create,
            "DescribeEndpoint": self.describe,
            "ListEndpoints": self.page,
            "UpdateEndpoint": self.update,
            "UpdateEndpointWeightsAndCapacities": self.scale,
            "DeleteEndpoint": self.delete,
        }

    def live(self, name: str) -> Live | None:
        """The endpoint if it serves, or is about to again."""
        return self._work.live(name)

    def status(self, name: str) -> str | None:
        """As DescribeEndpoint has it, or None."""
        document = self._shelf.find(name)
        return None if document is None else document["EndpointStatus"]

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to start the containers."""
        wanted = self._wanted(request["EndpointConfigName"])
        with self._work.lock:
            self._admit()
            members = ("EndpointName", "Tags")
            kept = {name: request[name] for name in members if name in request}
            _warn(wanted)
            document = self._shelf.create({**kept, **wanted}, EndpointStatus="Creating")
            self._work.begin(request["EndpointName"], self._work.create)
        return {"EndpointArn": document["EndpointArn"]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        name = request["EndpointName"]
        document = self._shelf.get(name)
        live = self._work.live(name)
        fleet = None if live is None else live.fleet
        if fleet is not None:
            document["ProductionVariants"] = [one.describe() for one in fleet.variants]
        if captured := document.get("DataCaptureConfig"):
            serves = document["EndpointStatus"] not in ("Creating", "Failed")
            document["DataCaptureConfig"] = _capture(captured, serves=serves)
        return document

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        return self._shelf.page(request, "Endpoints", "EndpointStatus", _summary)

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to start new containers; the old ones serve until these do."""
        name = request["EndpointName"]
        with self._work.lock:
            document = self._steady(name)
            wanted = self._wanted(request["EndpointConfigName"])
            if request.get("RetainAllVariantProperties"):
                excluded = request.get("ExcludeRetainedVariantProperties", ())
                _retain(wanted, document, {one["VariantPropertyType"] for one in excluded})
            _warn(wanted)
            self._admit()
            more = {}
            if config := request.get("DeploymentConfig"):
                more["LastDeploymentConfig"] = config
            self._shelf.set(name, EndpointStatus="Updating", Pending=wanted, **more)
            self._work.begin(name, self._work.update)
        return {"EndpointArn": document["EndpointArn"]}

    def scale(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give variants other weights at once, and begin to change the numbers of containers."""
        name = request["EndpointName"]
        with self._work.lock:
            document = self._steady(name)
            changed = _scaled(document, request["DesiredWeightsAndCapacities"])
            self._admit()
            self._shelf.set(name, EndpointStatus="Updating", Plans=changed)
            self._work.begin(name, self._work.scale)
        return {"EndpointArn": document["EndpointArn"]}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to stop the containers, whatever the endpoint is doing."""
        name = request["EndpointName"]
        with self._work.lock:
            document = self._shelf.get(name)
            if document["EndpointStatus"] == "Deleting":
                raise _busy(document)
            self._shelf.set(name, EndpointStatus="Deleting")
            self._work.abandon(name)
            self._work.begin(name, self._work.delete)
        return {}

    def recover(self) -> None:
        """Start again what served, or was about to, when the server ended."""
        self._work.clean()
        for document in self._shelf.all():
            name, status = document["EndpointName"], document["EndpointStatus"]
            if status not in ("InService", *IN_PROGRESS):
                continue
            with self._work.lock:
                if self._work.known(name):  # created since the start
                    continue
                if status == "Deleting":
                    self._work.begin(name, self._work.delete)
                    continue
                if status not in ("Creating", "SystemUpdating"):
                    self._shelf.set(name, EndpointStatus="SystemUpdating", Pending=None)
                self._work.begin(name, self._work.create)

    def close(self) -> None:
        """Stop all containers; the endpoints stay, for the next start."""
        self._work.close()

    def _wanted(self, config_name: str) -> dict[str, Any]:
        """What an endpoint of this configuration is."""
        config = self._configs.get(config_name)
        # What this one has not is taken away from an endpoint that had it.
        members = ("AsyncInferenceConfig", "DataCaptureConfig")
        return {
            "EndpointConfigName": config_name,
            "Plans": plans(config, self._models.get),
            **{name: config.get(name) for name in members},
        }

    def _steady(self, name: str) -> Document:
        """An endpoint that may be changed.

        Raises:
            AwsError: There is none, or something is being done to it.
        """
        document = self._shelf.get(name)
        if document["EndpointStatus"] in IN_PROGRESS:
            raise _busy(document)
        if document["EndpointStatus"] != "InService":
            raise invalid(
                f'Endpoint "{document["EndpointArn"]}" is {document["EndpointStatus"]}; '
                "it can only be deleted."
            )
        return document

    def _admit(self) -> None:
        if self._work.count >= MOST_AT_WORK:
            raise limit_exceeded(
                f"{MOST_AT_WORK} endpoints are being created, updated or deleted; "
                "wait until one of them is done."
            )


def _busy(document: Document) -> AwsError:
    return invalid(f'Cannot update in-progress endpoint "{document["EndpointArn"]}".')


def _retain(wanted: dict[str, Any], before: Document, but: set[str]) -> None:
    """Take over weights and counts of variants of the same name, and what is captured."""
    if "DataCaptureConfig" not in but:
        wanted["DataCaptureConfig"] = before.get("DataCaptureConfig")
    known = {plan["VariantName"]: plan for plan in before["Plans"]}
    for plan in wanted["Plans"]:
        old = known.get(plan["VariantName"])
        if old is not None:
            if "DesiredWeight" not in but:
                plan["Weight"] = old["Weight"]
            if "DesiredInstanceCount" not in but:
                plan["Count"] = old["Count"]


def _warn(wanted: dict[str, Any]) -> None:
    """Have the first container's log say that nothing is captured, where that is asked for."""
    if (wanted["DataCaptureConfig"] or {}).get("EnableCapture"):
        wanted["Plans"][0]["Warning"] = "DataCaptureConfig: locally nothing is captured"


def _scaled(document: Document, desired: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plans with new weights and counts.

    Raises:
        AwsError: A variant is unknown, or a count is none.
    """
    changed: list[dict[str, Any]] = copy.deepcopy(document["Plans"])
    known = {plan["VariantName"]: plan for plan in changed}
    for one in desired:
        plan = known.get(one["VariantName"])
        if plan is None:
            raise invalid(
                f'The variant name "{one["VariantName"]}" is not present within endpoint '
                f'configuration "{document["EndpointConfigName"]}".'
            )
        plan["Weight"] = one.get("DesiredWeight", plan["Weight"])
        count = one.get("DesiredInstanceCount", plan["Count"])
        if count < 1:
            raise invalid(f"Variant {one['VariantName']} needs at least one instance.")
        plan["Count"] = count
    return changed


def _capture(config: Mapping[str, Any], *, serves: bool) -> dict[str, Any]:
    """A DataCaptureConfigSummary: the configuration's form, and DescribeEndpoint's, differ."""
    enabled = bool(config.get("EnableCapture", False))
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled and serves else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def _summary(document: Document) -> dict[str, Any]:
    keys = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
    return {key: document[key] for key in keys}
