"""The models' part of ``/metrics``.

Whoever loads models chooses their names, any number of them over an endpoint's life, and whoever
scrapes pays by the series. So only models that are loaded have lines of their own, of those only a
fixed number, the longest loaded first, and none of the lines is a histogram.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from byoc_serving.multimodel.memory import usage
from byoc_serving.multimodel.registry import FAILED, INSUFFICIENT_MEMORY, LOADED
from byoc_serving.multimodel.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc_serving.multimodel.model import Model
    from byoc_serving.multimodel.registry import Registry

#: Names may be longer than anybody wants to read in a label.
_LABEL_LENGTH = 128


def families(registry: Registry, most: int) -> Iterator[Any]:
    """Every metric family of the models.

    Args:
        registry: the models.
        most: models that have lines of their own.
    """
    from prometheus_client.core import (  # noqa: PLC0415 - imported when first asked for
        CounterMetricFamily,
        GaugeMetricFamily,
    )

    models = registry.all()
    states = Counter(model.state for model in models)
    count = GaugeMetricFamily("byoc_models", "Models by state.", labels=["state"])
    for state in State:
        count.add_metric([state.value], states[state])
    yield count
    loads = CounterMetricFamily("byoc_model_loads", "Loads by their results.", labels=["result"])
    for result in (LOADED, INSUFFICIENT_MEMORY, FAILED):
        loads.add_metric([result], registry.loads[result])
    yield loads
    yield CounterMetricFamily("byoc_model_unloads", "Unloads.", registry.unloads)
    loaded = [model for model in models if model.state in {State.READY, State.RESTARTING}]
    yield GaugeMetricFamily(
        "byoc_models_unlisted",
        "Models without lines of their own (BYOC_METRICS_MODELS).",
        max(0, len(loaded) - most),
    )
    if loaded[:most]:
        yield from _of_each({label(model.name): model for model in loaded[:most]})


def _of_each(models: dict[str, Model]) -> Iterator[Any]:
    from prometheus_client.core import (  # noqa: PLC0415 - as above
        CounterMetricFamily,
        GaugeMetricFamily,
    )

    one = ["model"]
    requests = CounterMetricFamily(
        "byoc_model_requests", "Requests by how they ended.", labels=["model", "outcome"]
    )
    seconds = CounterMetricFamily("byoc_model_predict_seconds", "Spent predicting.", labels=one)
    restarts = CounterMetricFamily(
        "byoc_model_restarts", "Its processes that ended on their own.", labels=one
    )
    inside = GaugeMetricFamily("byoc_model_in_flight", "Requests waiting or running.", labels=one)
    memory = GaugeMetricFamily(
        "byoc_model_memory_bytes", "Memory that unloading it would free.", labels=one
    )
    held = GaugeMetricFamily(
        "byoc_model_gpu_memory_reserved_bytes", "Held by torch's allocator.", labels=one
    )
    for name, model in models.items():
        tally = model.tally
        for outcome, number in tally.outcomes.items():
            if number:
                requests.add_metric([name, outcome], number)
        seconds.add_metric([name], tally.predict_s)
        restarts.add_metric([name], tally.restarts)
        inside.add_metric([name], len(model.calls))
        if model.pid and (private := usage(str(model.pid)).private_bytes):
            memory.add_metric([name], private)
        if tally.gpu[1]:
            held.add_metric([name], tally.gpu[1])
    every = (requests, seconds, restarts, inside, memory, held)
    yield from (family for family in every if family.samples)


def label(name: str) -> str:
    """A model's name as a label; long ones are cut and told apart by a digest."""
    if len(name) <= _LABEL_LENGTH:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{name[: _LABEL_LENGTH - 17]}…{digest}"
