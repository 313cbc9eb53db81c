"""The containers of an endpoint: its production variants, each a number of equal containers."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc.local import images
from byoc.local.hosting import model_data
from byoc.local.hosting.container import Container, StartError
from byoc.local.hosting.instance import Instance
from byoc.local.hosting.launch import START_SECONDS, Program
from byoc.local.hosting.model_data import ModelDataError
from byoc.local.hosting.multi_model import ModelShelf
from byoc.local.hosting.plans import cores

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from byoc.local.actions import Context
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
        context: Of the local endpoint.
        root: A folder of this fleet alone.
        runner: ``auto``, ``docker`` or ``process``.
        s3: A client.
        journal: Opens a log stream.
    """

    context: Context
    root: Path
    runner: str
    s3: Any
    journal: Callable[[str], Journal]


class Variant:
    """A production variant.

    Attributes:
        name: Of the variant.
        weight: Its share of the requests, beside the others' weights.
        desired: Instances that were asked for; at most as many as cores are started.
        models: Of a multi-model variant.
    """

    def __init__(self, plan: Plan, around: Surroundings) -> None:
        self.name: str = plan["VariantName"]
        self.weight: float = plan["Weight"]
        self.desired: int = plan["Count"]
        self.serverless: bool = plan.get("Serverless") is not None
        self.models: ModelShelf | None = None
        self.instances: list[Instance] = []
        #: Whether the request names the container that answers; otherwise all do in turn.
        self.direct: bool = plan.get("Direct", False)
        self._named = {
            container.get("ContainerHostname", f"container-{number}"): container
            for number, container in enumerate(plan["Containers"], 1)
        }
        self._plan, self._around = plan, around
        self._turn = itertools.count()
        self._since = time.time()

    def start(self) -> None:
        """Fetch the model's files and start the containers.

        Raises:
            StartError: One of these cannot be done.
        """
        try:
            for name, container in self._named.items():
                root = self._root_of(name)
                if container.get("Mode") == "MultiModel":
                    (root / "model").mkdir(parents=True)
                    self.models = ModelShelf(container["ModelDataUrl"], root, self._around.s3)
                else:
                    model_data.fetch(container, root, self._around.s3)
        except ModelDataError as error:
            raise StartError(str(error)) from error
        except OSError as error:
            raise StartError(f"The model's files cannot be written: {error}.") from error
        self.instances = self.missing(self.desired)
        if warning := self._plan.get("Warning"):
            self.instances[0].only.tell(f"byoc: {warning}")
        for one in self.instances:
            one.start()

    def missing(self, desired: int) -> list[Instance]:
        """The instances that have to be added; neither started nor added."""
        wanted = min(desired, cores())
        return [self._instance(desired) for _ in range(len(self.instances), wanted)]

    def add(self, more: list[Instance]) -> None:
        """Send requests to further instances."""
        self.instances = [*self.instances, *more]

    def shrink(self, desired: int) -> list[Instance]:
        """Take away the instances that are too many; the caller stops them."""
        gone = self.instances[desired:]
        self.instances = self.instances[:desired]
        return gone

    def pick(self, model: str | None = None) -> Instance | None:
        """The next instance that serves; the same for the same model."""
        serving = [one for one in self.instances if one.ready]
        if not serving:
            return None
        turn = next(self._turn) if model is None else sum(model.encode())
        return serving[turn % len(serving)]

    def describe(self) -> dict[str, Any]:
        """A ProductionVariantSummary."""
        summary: dict[str, Any] = {
            "VariantName": self.name,
            "DeployedImages": [
                {
                    "SpecifiedImage": container["Image"],
                    "ResolvedImage": images.resolved(container["Image"], self._digest_of(name)),
                    "ResolutionTime": self._since,
                }
                for name, container in self._named.items()
            ],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": len(self.instances),
            "DesiredInstanceCount": self.desired,
        }
        if self.serverless:
            summary["CurrentServerlessConfig"] = self._plan["Serverless"]
        return summary

    def _digest_of(self, name: str) -> str:
        digests = (one.containers[name].digest for one in self.instances)
        return next((digest for digest in digests if digest), "")

    def _instance(self, desired: int) -> Instance:
        # An instance's name, as EC2 gives it.
        stream = f"{self.name}/i-0{secrets.token_hex(8)}"
        containers = {}
        for name, container in self._named.items():
            program = Program(
                context=self._around.context,
                image=container["Image"],
                runner=self._around.runner,
                root=self._root_of(name),
                environment={
                    **container.get("Environment", {}),
                    **({} if self.models is None else {"SAGEMAKER_MULTI_MODEL": "true"}),
                },
                start_seconds=self._plan.get("StartSeconds", START_SECONDS),
                instance_type=self._plan.get("InstanceType", ""),
            )
            own = stream if len(self._named) == 1 else f"{stream}/{name}"
            containers[name] = Container(program, self._around.journal(own))
        instance = Instance(own if len(containers) == 1 else f"{stream}/{next(iter(containers))}",
                            containers)  # fmt: skip
        if desired > cores():
            instance.only.tell(f"{desired} instances were asked for; this machine runs {cores()}")
        return instance

    def _root_of(self, name: str) -> Path:
        root = self._around.root / self.name
        return root if len(self._named) == 1 else root / name


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

    @property
    def instances(self) -> list[Instance]:
        """Of all variants."""
        return [one for variant in self.variants for one in variant.instances]

    def start(self, abandoned: threading.Event) -> None:
        """Start all containers, and wait until each has answered ``/ping`` with 200.

        Raises:
            StartError: One did not, or it was abandoned; nothing runs then.
        """
        model_data.remove(self._around.root)  # of an earlier server
        try:
            for variant in self.variants:
                variant.start()
            for variant in self.variants:
                await_ready(variant.name, variant.instances, abandoned)
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
        for instance in self.instances:
            instance.check()

    def stop(self) -> None:
        """Stop all containers, and delete their files."""
        stop(self.instances)
        model_data.remove(self._around.root)


def await_ready(variant: str, instances: Sequence[Instance], abandoned: threading.Event) -> None:
    """Wait until every instance serves.

    Raises:
        StartError: One does not, or it was abandoned.
    """
    try:
        while waiting := [one for one in instances if not one.ready]:
            for instance in waiting:
                instance.check_start()
            if any(not one.ready for one in waiting):
                _pause(abandoned)
    except StartError as error:
        raise StartError(f"Production variant {variant}: {error}") from error


def _pause(abandoned: threading.Event) -> None:
    if abandoned.wait(_LOOK_SECONDS):
        raise StartError("It was abandoned.")


def stop(instances: Sequence[Instance]) -> None:
    """Stop instances, several at once."""
    if instances:
        with ThreadPoolExecutor(min(_STOPPING, len(instances)), "stop-instance") as pool:
            list(pool.map(lambda one: one.stop(), instances))


def settle(instances: Sequence[Instance]) -> None:
    """Let instances that get no more requests finish those they have."""
    until = time.monotonic() + SETTLE_SECONDS
    if instances:
        time.sleep(_LOOK_SECONDS)  # one may just have been chosen
    while any(one.in_flight for one in instances) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
