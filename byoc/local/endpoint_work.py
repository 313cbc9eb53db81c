"""What is done to endpoints: a thread for each, and never two things at once to one."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from byoc.local.faults import AwsError
from byoc.local.hosting import fleet as fleets
from byoc.local.hosting import model_data
from byoc.local.hosting.container import StartError
from byoc.local.hosting.fleet import Fleet, Surroundings
from byoc.local.hosting.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from byoc.local.actions import Context
    from byoc.local.clients import Clients
    from byoc.local.hosting.fleet import Variant
    from byoc.local.hosting.instance import Instance
    from byoc.local.journal import Journals
    from byoc.local.shelf import Shelf
    from byoc.local.store import Document

    Work = Callable[[str, threading.Event], None]

LOOK_SECONDS = 0.1
#: For requests on the old containers of an update: as long as a stream may take.
DRAIN_SECONDS = 480.0
_LONGEST_REASON = 1024


class EndpointWork:
    """The fleets of all endpoints.

    Args:
        context: What all resources share.
        runner: ``auto``, ``docker`` or ``process``.
        log: The server's own.
        clients: Of S3.
        journals: Where containers' output goes.
        shelf: The endpoints' documents.
    """

    def __init__(
        self,
        context: Context,
        runner: str,
        log: Callable[[str], None],
        clients: Clients,
        journals: Journals,
        shelf: Shelf,
    ) -> None:
        self._context, self._runner, self._log = context, runner, log
        self._clients, self._journals, self._shelf = clients, journals, shelf
        self._live: dict[str, Live] = {}
        self._working: dict[str, tuple[threading.Thread, threading.Event]] = {}
        #: Held for a decision about an endpoint and what it leads to.
        self.lock = threading.RLock()
        #: Those that answer their last requests.
        self._leaving: list[Instance] = []
        #: Names of the folders of this server's fleets.
        self._fleets: set[str] = set()
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None

    def live(self, name: str) -> Live | None:
        """The endpoint if it serves, or is about to again."""
        return self._live.get(name)

    @property
    def count(self) -> int:
        """Endpoints to which something is being done."""
        return len(self._working)

    def known(self, name: str) -> bool:
        """Whether something is or has been done to it since the server's start."""
        return name in self._working or name in self._live

    def abandon(self, name: str) -> None:
        """Give up what is being done to it."""
        if found := self._working.get(name):
            found[1].set()

    def clean(self) -> None:
        """Delete files of an earlier server."""
        for folder in self._folder.glob("*/*"):
            if folder.name not in self._fleets:
                model_data.remove(folder)

    def close(self) -> None:
        """Stop all containers; the endpoints stay, for the next start."""
        self._closed.set()
        with self.lock:
            working = [*self._working.values()]
        for _, abandoned in working:
            abandoned.set()
        running = [fleet for live in self._live.values() if (fleet := live.swap(None)) is not None]
        fleets.stop([*(one for fleet in running for one in fleet.instances), *self._leaving])
        for thread, _ in working:
            thread.join(60)
        model_data.remove(self._folder)

    @property
    def _folder(self) -> Path:
        return self._context.home.work / "endpoints"

    def begin(self, name: str, work: Work) -> None:
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
                reason = f"The local endpoint failed: {error}"
                self._shelf.settle(
                    name, self._closed, self._log, EndpointStatus="Failed", FailureReason=reason
                )
            finally:
                with self.lock:
                    if self._working.get(name, (None,))[0] is thread:
                        del self._working[name]

        thread = threading.Thread(target=run, name=f"endpoint-{name}", daemon=True)
        self._working[name] = thread, abandoned
        thread.start()

    def create(self, name: str, abandoned: threading.Event) -> None:
        """Start the containers for the first time, or after the server's start."""
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

    def update(self, name: str, abandoned: threading.Event) -> None:
        """Start the next containers, change over to them, and stop those before."""
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
            self._leaving += before.instances
            if not self._live[name].drain(before, DRAIN_SECONDS):
                self._log(f"endpoint {name}: old containers are stopped with requests in flight")
            before.stop()
            self._leaving = [one for one in self._leaving if one not in before.instances]
        self._settle(name, abandoned, EndpointStatus="InService")

    def scale(self, name: str, abandoned: threading.Event) -> None:
        """Change over to the weights and numbers of the endpoint's plans."""
        fleet = self._live[name].fleet
        if fleet is None:
            return
        reason = None
        for plan in self._shelf.get(name)["Plans"]:
            variant = fleet.variant(plan["VariantName"])
            if variant is not None:
                variant.weight = plan["Weight"]
                try:
                    self._resize(variant, plan["Count"], abandoned)
                except StartError as error:
                    reason = str(error)[:_LONGEST_REASON]
        self._settle(name, abandoned, EndpointStatus="InService", FailureReason=reason)

    def _resize(self, variant: Variant, count: int, abandoned: threading.Event) -> None:
        """Start the instances that are missing, or stop those that are too many.

        Raises:
            StartError: One does not serve; the variant stays as it was.
        """
        more = variant.missing(count)
        try:
            for one in more:
                one.start()
            fleets.await_ready(variant.name, more, abandoned)
        except StartError:
            fleets.stop(more)
            raise
        variant.desired = count
        variant.add(more)
        gone = variant.shrink(count)
        self._leaving += gone
        fleets.settle(gone)
        fleets.stop(gone)
        self._leaving = [one for one in self._leaving if one not in gone]

    def delete(self, name: str, _: threading.Event) -> None:
        """Let the last requests be answered, and stop the containers."""
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
        with self.lock:
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
        name, number = document["EndpointName"], secrets.token_hex(4)
        self._fleets.add(number)
        around = Surroundings(
            context=self._context,
            root=self._folder / name / number,
            runner=self._runner,
            s3=self._clients("s3"),
            journal=lambda stream: self._journals.open(log_group(name), stream),
        )
        return Fleet(document["Plans"], around, document.get("AsyncInferenceConfig"))


def log_group(name: str) -> str:
    """Of an endpoint's containers in CloudWatch Logs."""
    return f"/aws/sagemaker/Endpoints/{name}"
