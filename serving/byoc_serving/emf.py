"""CloudWatch's embedded metric format: one line an interval, from which CloudWatch makes metrics.

The format is Amazon's (CloudWatch user guide, "Specification: Embedded metric format"): a JSON
object whose member ``_aws`` names the metrics among the others. A metric's value is a number or an
array of at most 100 numbers.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving import meter
from byoc_serving.table import State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from byoc_serving.meter import Distribution, Histogram, Ledger
    from byoc_serving.table import Table

#: The specification's limit for one metric of one document.
VALUES = 100
#: Distributions are given in milliseconds.
_TIMES = {
    "RequestLatency": tuple(meter.DURATION[route] for route in meter.INVOKED),
    "QueueWait": (meter.QUEUE_WAIT,),
    "PredictDuration": (meter.FORWARD,),
}

_INVOKED = {meter.ROUTES[route] for route in meter.INVOKED}


@dataclass(frozen=True)
class Snapshot:
    """What had been counted at a moment."""

    numbers: list[float]

    def statuses(self) -> dict[int, float]:
        """Answered invocations by status class: 2, 4, 5."""
        classes: dict[int, float] = {}
        for route, status, count in meter.responses(self.numbers):
            if route in _INVOKED:
                classes[status // 100] = classes.get(status // 100, 0.0) + count
        return classes


class Emitter:
    """Writes a line each interval, for the whole server; lives in the master.

    Args:
        ledger: what all processes count.
        table: their states.
        namespace: of the metrics.
        dimensions: names and values; at least one.
        interval_s: seconds between lines.
        stream: where to; the platform hands standard output on to CloudWatch Logs.
    """

    def __init__(
        self,
        ledger: Ledger,
        table: Table,
        namespace: str,
        dimensions: Mapping[str, str],
        interval_s: float,
        stream: TextIO,
    ) -> None:
        self._ledger = ledger
        self._table = table
        self._namespace = namespace
        self._dimensions = dict(dimensions)
        self._interval_s = interval_s
        self._stream = stream
        self._before = Snapshot(ledger.total())
        self._next = time.monotonic() + interval_s

    def tick(self) -> None:
        """Write the interval's line when it is over."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval_s
            self.flush()

    def flush(self) -> None:
        """Write what has been counted since the last line."""
        after = Snapshot(self._ledger.total())
        line = json.dumps(self.document(self._before, after), separators=(",", ":"))
        self._before = after
        # Nobody reads any more: no reason to stop serving.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self._stream, flush=True)

    def document(self, before: Snapshot, after: Snapshot) -> dict[str, Any]:
        """The line's content: what was counted between two moments, and the gauges of now."""
        then, now = before.statuses(), after.statuses()
        values: dict[str, tuple[str, Any]] = {
            "Invocations": ("Count", sum(now.values()) - sum(then.values())),
            "Invocation4XXErrors": ("Count", now.get(4, 0.0) - then.get(4, 0.0)),
            "Invocation5XXErrors": ("Count", now.get(5, 0.0) - then.get(5, 0.0)),
            "InvocationsInFlight": ("Count", after.numbers[meter.IN_FLIGHT]),
            "WorkersReady": (
                "Count",
                sum(slot.state is State.READY for slot in self._table.slots()),
            ),
            "WorkerRestarts": (
                "Count",
                after.numbers[meter.RESTARTS] - before.numbers[meter.RESTARTS],
            ),
        }
        for name, places in _TIMES.items():
            times = _sum(places, after).minus(_sum(places, before))
            if times.count:
                values[name] = ("Milliseconds", [round(s * 1e3, 3) for s in spread(times)])
        sizes = meter.BATCH.read(after.numbers).minus(meter.BATCH.read(before.numbers))
        if sizes.count:
            values["BatchSize"] = ("None", round(sizes.total / sizes.count, 3))
        metrics = [{"Name": name, "Unit": unit} for name, (unit, _) in values.items()]
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [list(self._dimensions)],
            "Metrics": metrics,
        }
        return {
            "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
            **self._dimensions,
            **{name: value for name, (_, value) in values.items()},
        }


def _sum(places: tuple[Histogram, ...], moment: Snapshot) -> Distribution:
    distributions = [place.read(moment.numbers) for place in places]
    total = distributions[0]
    for distribution in distributions[1:]:
        total = total.plus(distribution)
    return total


def spread(times: Distribution) -> list[float]:
    """Values with the distribution's percentiles: as many as were counted, 100 at most."""
    count = min(VALUES, int(times.count))
    return [times.quantile((number + 0.5) / count) for number in range(count)]
