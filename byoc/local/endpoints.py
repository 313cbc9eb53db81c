"""Endpoints: containers that really serve, from their first ping to their last request."""

from __future__ import annotations

import copy
import secrets
import threading
from typing import TYPE_CHECKING, Any

from byoc.local import exports
from byoc.local.faults import AwsError, invalid, limit_exceeded
from byoc.local.hosting import fleet as fleets
from byoc.local.hosting import leftovers, model_data
from byoc.local.hosting.container import StartError
from byoc.local.hosting.fleet import Fleet, Surroundings
from byoc.local.hosting.live import Live
from byoc.local.hosting.plans import plans
from byoc.local.kinds import ENDPOINT, ENDPOINT_CONFIG, MODEL
from byoc.local.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.actions import Action, Context
    from byoc.local.clients import Clients
    from byoc.local.journal import Journals
    from byoc.local.store import Document

    Work = Callable[[str, threading.Event], None]

#: Endpoints that are created, updated or deleted at the same time.
MOST_AT_WORK = 16
LOOK_SECONDS = 0.1
#: For requests on the old containers of an update: as long as a stream may take.
DRAIN_SECONDS = 480.0
IN_PROGRESS = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_LONGEST_REASON = 1024


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
        self._context, self._runner, self._log = context, runner, log
        self._shelf = Shelf(context, ENDPOINT)
        self._configs, self._models = Shelf(context, ENDPOINT_CONFIG), Shelf(context, MODEL)
        self._clients, self._journals = clients, journals
        self._live: dict[str, Live] = {}
        self._working: dict[str, tuple[threading.Thread, threading.Event]] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

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
        return self._live.get(name)

    def status(self, name: str) -> str | None:
        """As DescribeEndpoint has it, or None."""
        document = self._shelf.find(name)
        return None if document is None else document["EndpointStatus"]

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to start the containers."""
        wanted = self._wanted(request["EndpointConfigName"])
        with self._lock:
            self._admit()
            members = ("EndpointName", "Tags")
            kept = {name: request[name] for name in members if name in request}
            document = self._shelf.create({**kept, **wanted}, EndpointStatus="Creating")
            self._begin(request["EndpointName"], self._create)
        return {"EndpointArn": document["EndpointArn"]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        name = request["EndpointName"]
        document = self._shelf.get(name)
        live = self._live.get(name)
        fleet = None if live is None else live.fleet
        if fleet is not None:
            document["ProductionVariants"] = [one.describe() for one in fleet.variants]
        return document

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        return self._shelf.page(request, "Endpoints", "EndpointStatus", _summary)

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to start new containers; the old ones serve until these do."""
        name = request["EndpointName"]
        with self._lock:
            document = self._steady(name)
            wanted = self._wanted(request["EndpointConfigName"])
            if request.get("RetainAllVariantProperties"):
                excluded = request.get("ExcludeRetainedVariantProperties", ())
                _retain(
                    wanted["Plans"],
                    document["Plans"],
                    {one["VariantPropertyType"] for one in excluded},
                )
            self._admit()
            more = {}
            if config := request.get("DeploymentConfig"):
                more["LastDeploymentConfig"] = config
            self._shelf.set(name, EndpointStatus="Updating", Pending=wanted, **more)
            self._begin(name, self._update)
        return {"EndpointArn": document["EndpointArn"]}

    def scale(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give variants other weights at once, and begin to change the numbers of containers."""
        name = request["EndpointName"]
        with self._lock:
            document = self._steady(name)
            changed = _scaled(document, request["DesiredWeightsAndCapacities"])
            self._admit()
            self._shelf.set(name, EndpointStatus="Updating", Plans=changed)
            self._begin(name, self._scale)
        return {"EndpointArn": document["EndpointArn"]}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to stop the containers, whatever the endpoint is doing."""
        name = request["EndpointName"]
        with self._lock:
            document = self._shelf.get(name)
            if document["EndpointStatus"] == "Deleting":
                raise _busy(document)
            self._shelf.set(name, EndpointStatus="Deleting")
            before = self._working.get(name)
            if before is not None:
                before[1].set()
            self._begin(name, self._delete)
        return {}

    def recover(self) -> None:
        """Start again what served, or was about to, when the server ended."""
        leftovers.end(self._folder)
        model_data.remove(self._folder)
        for document in self._shelf.all():
            name, status = document["EndpointName"], document["EndpointStatus"]
            if status not in ("InService", *IN_PROGRESS):
                continue
            with self._lock:
                if name in self._working:  # created since the start
                    continue
                if status == "Deleting":
                    self._begin(name, self._delete)
                    continue
                if status not in ("Creating", "SystemUpdating"):
                    self._shelf.set(name, EndpointStatus="SystemUpdating", Pending=None)
                self._begin(name, self._create)

    def close(self) -> None:
        """Stop all containers; the endpoints stay, for the next start."""
        self._closed.set()
        with self._lock:
            working = [*self._working.values()]
        for _, abandoned in working:
            abandoned.set()
        running = [fleet for live in self._live.values() if (fleet := live.swap(None)) is not None]
        fleets.stop([one for fleet in running for variant in fleet.variants
                     for _, one in variant.containers])  # fmt: skip
        for thread, _ in working:
            thread.join(60)
        model_data.remove(self._folder)

    @property
    def _folder(self) -> Path:
        return self._context.home.work / "endpoints"

    def _wanted(self, config_name: str) -> dict[str, Any]:
        """What an endpoint of this configuration is."""
        config = self._configs.get(config_name)
        members = ("AsyncInferenceConfig", "DataCaptureConfig")
        more = {name: config[name] for name in members if name in config}
        return {
            "EndpointConfigName": config_name,
            "Plans": plans(config, self._models.get),
            **({"AsyncInferenceConfig": None} | more),
        }

    def _steady(self, name: str) -> Document:
        """An endpoint that may be changed.

        Raises:
            AwsError: There is none, or something is being done to it.
        """
        document = self._shelf.get(name)
        if document["EndpointStatus"] in IN_PROGRESS or name in self._working:
            raise _busy(document)
        if document["EndpointStatus"] != "InService":
            raise invalid(
                f'Endpoint "{document["EndpointArn"]}" is {document["EndpointStatus"]}; '
                "it can only be deleted."
            )
        return document

    def _admit(self) -> None:
        if len(self._working) >= MOST_AT_WORK:
            raise limit_exceeded(
                f"{MOST_AT_WORK} endpoints are being created, updated or deleted; "
                "wait until one of them is done."
            )

    def _begin(self, name: str, work: Work) -> None:
        """Do something to an endpoint in a thread of its own, after what is being done to it."""
        before = self._working.get(name)
        abandoned = threading.Event()

        def run() -> None:
            try:
                if before is not None:
                    before[0].join()
                work(name, abandoned)
            except AwsError as error:  # it has been deleted meanwhile
                self._log(f"endpoint {name}: {error.message}")
            except Exception as error:  # noqa: BLE001 - told to whoever asks
                self._log(f"endpoint {name}: {error!r}")
                self._shelf.set(
                    name,
                    EndpointStatus="Failed",
                    FailureReason=f"The local endpoint failed: {error}",
                )
            finally:
                with self._lock:
                    if self._working.get(name, (None,))[0] is thread:
                        del self._working[name]

        thread = threading.Thread(target=run, name=f"endpoint-{name}", daemon=True)
        self._working[name] = thread, abandoned
        thread.start()

    def _create(self, name: str, abandoned: threading.Event) -> None:
        fleet = self._fleet(self._shelf.get(name))
        try:
            fleet.start(abandoned)
        except StartError as error:
            if not abandoned.is_set():
                reason = str(error)[:_LONGEST_REASON]
                self._settle(name, abandoned, EndpointStatus="Failed", FailureReason=reason)
            return
        self._serve(name, fleet)
        self._settle(name, abandoned, EndpointStatus="InService", FailureReason=None)

    def _update(self, name: str, abandoned: threading.Event) -> None:
        pending = self._shelf.get(name)["Pending"]
        fleet = self._fleet({**self._shelf.get(name), **pending})
        try:
            fleet.start(abandoned)
        except StartError as error:
            if not abandoned.is_set():
                # The old containers have served all the time, and go on.
                self._settle(
                    name,
                    abandoned,
                    EndpointStatus="InService",
                    FailureReason=f"The update was rolled back. {error}"[:_LONGEST_REASON],
                    Pending=None,
                )
            return
        before = self._serve(name, fleet)
        self._settle(name, abandoned, FailureReason=None, Pending=None, **pending)
        if before is not None:
            if not self._live[name].drain(before, DRAIN_SECONDS):
                self._log(f"endpoint {name}: old containers are stopped with requests in flight")
            before.stop()
        self._settle(name, abandoned, EndpointStatus="InService")

    def _scale(self, name: str, abandoned: threading.Event) -> None:
        fleet = self._live[name].fleet
        if fleet is None:
            return
        reason, gone = None, []
        for plan in self._shelf.get(name)["Plans"]:
            variant = fleet.variant(plan["VariantName"])
            if variant is None:
                continue
            variant.weight = plan["Weight"]
            gone += variant.shrink(plan["Count"])
            added = variant.grow(plan["Count"])
            try:
                for one in added:
                    one.start()
                fleets.await_ready([variant], abandoned)
            except StartError as error:
                gone += variant.shrink(len(variant.containers) - len(added))
                reason = str(error)[:_LONGEST_REASON]
        if gone:
            # A request may still be on one of them; later ones go to the others.
            fleets.settle(gone)
            fleets.stop(gone)
        self._settle(name, abandoned, EndpointStatus="InService", FailureReason=reason)

    def _delete(self, name: str, _: threading.Event) -> None:
        live = self._live.get(name)
        fleet = None if live is None else live.swap(None)
        if live is not None and fleet is not None:
            live.drain(fleet, DRAIN_SECONDS if not self._closed.is_set() else 0)
            fleet.stop()
        self._live.pop(name, None)
        self._shelf.delete(name)

    def _settle(self, name: str, abandoned: threading.Event, **members: Any) -> None:
        """Write what has become of it, unless it is being deleted meanwhile."""

        def change(document: Document) -> None:
            if not abandoned.is_set():
                document.update(members)

        self._shelf.update(name, change)

    def _serve(self, name: str, fleet: Fleet) -> Fleet | None:
        """Send requests to the fleet, and watch it; returns the fleet before."""
        with self._lock:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
                self._keeper.start()
            before = self._live.setdefault(name, Live(name)).swap(fleet)
        if self._closed.is_set():
            self._live[name].swap(None)
            fleet.stop()
        return before

    def _keep(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            for live in [*self._live.values()]:
                fleet = live.fleet
                try:
                    if fleet is not None:
                        fleet.check()
                except Exception as error:  # noqa: BLE001 - the others are still looked after
                    self._log(f"endpoint {live.name}: {error!r}")

    def _fleet(self, document: Document) -> Fleet:
        name = document["EndpointName"]
        around = Surroundings(
            root=self._folder / name / secrets.token_hex(4),
            runner=self._runner,
            environment=exports.variables(self._context.url, self._context.region),
            s3=self._clients("s3"),
            journal=lambda stream: self._journals.open(log_group(name), stream),
        )
        return Fleet(document["Plans"], around, document.get("AsyncInferenceConfig"))


def log_group(name: str) -> str:
    """Of an endpoint's containers in CloudWatch Logs."""
    return f"/aws/sagemaker/Endpoints/{name}"


def _busy(document: Document) -> AwsError:
    return invalid(f'Cannot update in-progress endpoint "{document["EndpointArn"]}".')


def _retain(wanted: list[dict[str, Any]], before: list[dict[str, Any]], but: set[str]) -> None:
    """Take over weights and counts of variants of the same name."""
    known = {plan["VariantName"]: plan for plan in before}
    for plan in wanted:
        old = known.get(plan["VariantName"])
        if old is not None:
            if "DesiredWeight" not in but:
                plan["Weight"] = old["Weight"]
            if "DesiredInstanceCount" not in but:
                plan["Count"] = old["Count"]


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


def _summary(document: Document) -> dict[str, Any]:
    keys = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
    return {key: document[key] for key in keys}
