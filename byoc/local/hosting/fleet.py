"""The containers of an endpoint: its production variants, each a number of equal containers."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc.local.hosting import model_data
from byoc.local.hosting.container import START_SECONDS, Container, Program, StartError
from byoc.local.hosting.model_data import ModelDataError
from byoc.local.hosting.multi_model import ModelShelf
from byoc.local.hosting.plans import cores

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from byoc.local.hosting.plans import Plan
    from byoc.local.journal import Journal

_LOOK_SECONDS = 0.05
#: For requests on containers that are too many: as long as a stream may take.
SETTLE_SECONDS = 480.0
#: Threads that stop containers.
_STOPPING = 8


@dataclass(frozen=True)
class Surroundings:
    """What the containers of an endpoint share.

    Attributes:
        root: A folder of this fleet alone.
        runner: ``auto``, ``docker`` or ``process``.
        environment: What the platform sets.
        s3: A client.
        journal: Opens a log stream.
    """

    root: Path
    runner: str
    environment: dict[str, str]
    s3: Any
    journal: Callable[[str], Journal]


class Variant:
    """A production variant.

    Attributes:
        name: Of the variant.
        weight: Its share of the requests, beside the others' weights.
        desired: Containers that were asked for; at most as many as cores are started.
        models: Of a multi-model variant.
    """

    def __init__(self, plan: Plan, around: Surroundings) -> None:
        self.name: str = plan["VariantName"]
        self.weight: float = plan["Weight"]
        self.desired: int = plan["Count"]
        self.serverless: bool = plan.get("Serverless") is not None
        self.models: ModelShelf | None = None
        self.containers: list[tuple[str, Container]] = []
        self._plan, self._around = plan, around
        self._root = around.root / self.name
        self._turn = itertools.count()
        self._since = time.time()

    def start(self) -> None:
        """Fetch the model's files and start the containers.

        Raises:
            StartError: One of these cannot be done.
        """
        container = self._plan["Container"]
        try:
            if container.get("Mode") == "MultiModel":
                (self._root / "model").mkdir(parents=True)
                self.models = ModelShelf(container["ModelDataUrl"], self._root, self._around.s3)
            else:
                model_data.fetch(container, self._root, self._around.s3)
        except ModelDataError as error:
            raise StartError(str(error)) from error
        except OSError as error:
            raise StartError(f"The model's files cannot be written: {error}.") from error
        for one in self.grow(self.desired):
            one.start()

    def grow(self, desired: int) -> list[Container]:
        """Add the containers that are missing, not yet started."""
        self.desired = desired
        added = []
        while len(self.containers) < min(desired, cores()):
            # An instance's name, as EC2 gives it.
            stream = f"{self.name}/i-0{secrets.token_hex(8)}"
            container = self._container(self._around.journal(stream))
            if desired > cores():
                container.tell(f"{desired} instances were asked for; this machine runs {cores()}")
            added.append(container)
            self.containers.append((stream, container))
        return added

    def shrink(self, desired: int) -> list[Container]:
        """Take away the containers that are too many; the caller stops them."""
        self.desired = desired
        gone = [container for _, container in self.containers[desired:]]
        self.containers = self.containers[:desired]
        return gone

    def pick(self, model: str | None = None) -> tuple[str, Container] | None:
        """The next container that serves, with its stream; the same for the same model."""
        serving = [one for one in self.containers if one[1].ready]
        if not serving:
            return None
        turn = next(self._turn) if model is None else sum(model.encode())
        return serving[turn % len(serving)]

    def describe(self) -> dict[str, Any]:
        """A ProductionVariantSummary."""
        image = self._plan["Container"]["Image"]
        summary: dict[str, Any] = {
            "VariantName": self.name,
            "DeployedImages": [
                {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": self._since}
            ],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": len(self.containers),
            "DesiredInstanceCount": self.desired,
        }
        if self.serverless:
            summary["CurrentServerlessConfig"] = self._plan["Serverless"]
        return summary

    def _container(self, journal: Journal) -> Container:
        program = Program(
            image=self._plan["Container"]["Image"],
            runner=self._around.runner,
            root=self._root,
            environment={
                **self._around.environment,
                **self._plan["Container"].get("Environment", {}),
                **({} if self.models is None else {"SAGEMAKER_MULTI_MODEL": "true"}),
            },
            start_seconds=self._plan.get("StartSeconds", START_SECONDS),
        )
        return Container(program, journal)


class Fleet:
    """All containers of one generation of an endpoint.

    Attributes:
        variants: The production variants.
        asynchronous: The configuration's ``AsyncInferenceConfig``, if it has one.
        in_flight: Requests that use it; counted by the endpoint, under its lock.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        around: Surroundings,
        asynchronous: Mapping[str, Any] | None = None,
    ) -> None:
        self.variants = [Variant(plan, around) for plan in plans]
        self._around = around
        self.asynchronous = asynchronous
        self.in_flight = 0

    def start(self, abandoned: threading.Event) -> None:
        """Start all containers, and wait until each has answered ``/ping`` with 200.

        Raises:
            StartError: One did not, or it was abandoned; nothing runs then.
        """
        model_data.remove(self._around.root)  # of an earlier server
        try:
            for variant in self.variants:
                variant.start()
            await_ready(self.variants, abandoned)
        except BaseException:
            self.stop()
            raise

    def variant(self, name: str | None) -> Variant | None:
        """The named variant, or one by chance and weight; None where there is none."""
        if name is not None:
            return next((one for one in self.variants if one.name == name), None)
        if len(self.variants) == 1:
            return self.variants[0]
        weights = [one.weight for one in self.variants]
        if not sum(weights):
            return None
        return random.choices(self.variants, weights)[0]

    def check(self) -> None:
        """Start again what has ended."""
        for variant in self.variants:
            for _, container in variant.containers:
                container.check()

    def stop(self) -> None:
        """Stop all containers, and delete their files."""
        stop([one for variant in self.variants for _, one in variant.containers])
        model_data.remove(self._around.root)


def await_ready(variants: Sequence[Variant], abandoned: threading.Event) -> None:
    """Wait until every container of the variants serves.

    Raises:
        StartError: One does not, or it was abandoned.
    """
    while True:
        waiting = 0
        for variant in variants:
            for _, container in variant.containers:
                if container.ready:
                    continue
                try:
                    container.check_start()
                except StartError as error:
                    raise StartError(f"Production variant {variant.name}: {error}") from error
                waiting += not container.ready
        if not waiting:
            return
        if abandoned.wait(_LOOK_SECONDS):
            raise StartError("It was abandoned.")


def stop(containers: Sequence[Container]) -> None:
    """Stop containers, several at once."""
    if containers:
        with ThreadPoolExecutor(min(_STOPPING, len(containers)), "stop-container") as pool:
            list(pool.map(lambda one: one.stop(), containers))


def settle(containers: Sequence[Container]) -> None:
    """Let containers that get no more requests finish those they have."""
    time.sleep(_LOOK_SECONDS)  # one may just have been chosen
    until = time.monotonic() + SETTLE_SECONDS
    while any(one.in_flight for one in containers) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
