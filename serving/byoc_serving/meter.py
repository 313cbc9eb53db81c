"""What the server counts: numbers in shared memory, one row a process.

The master makes the memory before it forks. Each row has one writing process, so that counting is
an addition to a float, without files, system calls or locks between processes; who is asked for
``/metrics`` adds the rows up. A worker that replaces a crashed one goes on in its row, so no
counter ever falls.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from itertools import accumulate
from typing import Final

#: Paths that are told apart; every other one is counted as ``other``.
ROUTES: Final = (
    "/invocations",
    "/ping",
    "/metrics",
    "/openapi.json",
    "/execution-parameters",
    "/models",
    "/models/{name}",
    "/models/{name}/invoke",
    "/invocations-bidirectional-stream",
    "other",
)
_NUMBER: Final = {route: number for number, route in enumerate(ROUTES)}
_OTHER: Final = len(ROUTES) - 1
INVOCATIONS: Final = 0
#: Where a model is asked: the second route on a multi-model endpoint.
INVOKED: Final = (INVOCATIONS, ROUTES.index("/models/{name}/invoke"))

_LEAST_STATUS, _STATUSES = 100, 500


#: Upper bounds in seconds: from a ping's answer to the longest transform (3,600 s).
SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
    10, 30, 60, 600, 3600,
)  # fmt: skip
#: Upper bounds in requests.
REQUESTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: Upper bounds in bytes: up to a batch transform's 100 MB and an asynchronous request's 1 GB.
BYTES: Final = (
    64,
    256,
    1024,
    4096,
    16384,
    65536,
    262144,
    1048576,
    6291456,
    26214400,
    104857600,
    1073741824,
)


class Histogram:
    """Where a histogram lies in a row: a count for each bucket, those above all bounds, the sum.

    Args:
        offset: index of its first number.
        bounds: inclusive upper bounds, ascending.
    """

    __slots__ = ("bounds", "offset", "sum_at", "width")

    def __init__(self, offset: int, bounds: tuple[float, ...]) -> None:
        self.offset = offset
        self.bounds = bounds
        self.sum_at = offset + len(bounds) + 1
        self.width = len(bounds) + 2

    def observe(self, row: memoryview[float], value: float) -> None:
        """Count one value."""
        row[self.offset + bisect_left(self.bounds, value)] += 1
        row[self.sum_at] += value

    def read(self, numbers: list[float]) -> Distribution:
        """The histogram out of a row, or out of the sum of several."""
        counts = numbers[self.offset : self.sum_at]
        return Distribution(self.bounds, counts, numbers[self.sum_at])


class Distribution:
    """Counts between bounds.

    Attributes:
        bounds: inclusive upper bounds.
        counts: values in each bucket, those above all bounds last.
        total: sum of the values.
    """

    def __init__(self, bounds: tuple[float, ...], counts: list[float], total: float) -> None:
        self.bounds = bounds
        self.counts = counts
        self.total = total

    @property
    def count(self) -> float:
        """How many values."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Prometheus' buckets: the bound as text, how many values are not above it."""
        names = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))

    def plus(self, other: Distribution) -> Distribution:
        """Both together; the bounds are the same."""
        counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        return Distribution(self.bounds, counts, self.total + other.total)

    def minus(self, before: Distribution) -> Distribution:
        """What has been counted since."""
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return Distribution(self.bounds, counts, self.total - before.total)

    def quantile(self, share: float) -> float:
        """An estimate, linear inside its bucket; 0 when nothing was counted."""
        wanted, below, low = share * self.count, 0.0, 0.0
        if not wanted:
            return 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= wanted:
                return low + (bound - low) * (wanted - below) / count
            below, low = below + count, bound
        return low


class _Layout:
    """Hands out indices."""

    def __init__(self) -> None:
        self.size = 0

    def number(self) -> int:
        """One number."""
        self.size += 1
        return self.size - 1

    def histogram(self, bounds: tuple[float, ...]) -> Histogram:
        """A histogram."""
        histogram = Histogram(self.size, bounds)
        self.size += histogram.width
        return histogram


_layout = _Layout()
# Gauges: what the process itself has last said.
IN_FLIGHT: Final = _layout.number()
LOAD_SECONDS: Final = _layout.number()
GPU_ALLOCATED: Final = _layout.number()
GPU_RESERVED: Final = _layout.number()
GAUGES: Final = (IN_FLIGHT, LOAD_SECONDS, GPU_ALLOCATED, GPU_RESERVED)
# Counters and histograms.
RESTARTS: Final = _layout.number()
QUEUE_WAIT: Final = _layout.histogram(SECONDS)
FORWARD: Final = _layout.histogram(SECONDS)
BATCH: Final = _layout.histogram(REQUESTS)
RECEIVED: Final = _layout.histogram(BYTES)
SENT: Final = _layout.histogram(BYTES)
DURATION: Final = tuple(_layout.histogram(SECONDS) for _ in ROUTES)
_RESPONSES: Final = _layout.size
_SIZE: Final = _RESPONSES + len(ROUTES) * _STATUSES


class Ledger:
    """All rows.

    Args:
        workers: one row each; the porter and the master have the two behind them.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.porter = workers
        self.master = workers + 1
        # Pages that nobody writes to take no memory.
        self._numbers = memoryview(mmap.mmap(-1, (workers + 2) * _SIZE * 8)).cast("d")

    def row(self, number: int) -> memoryview[float]:
        """One process's numbers, to write to."""
        return self._numbers[number * _SIZE : (number + 1) * _SIZE]

    def total(self) -> list[float]:
        """Every number, summed over the processes."""
        rows = [self.row(number).tolist() for number in range(self.workers + 2)]
        return [sum(numbers) for numbers in zip(*rows, strict=True)]

    def gauge(self, number: int, index: int) -> float:
        """One process's gauge."""
        return self.row(number)[index]

    def leave(self, number: int) -> None:
        """A process is gone: its gauges mean nothing any more, its counts stay."""
        row = self.row(number)
        for index in GAUGES:
            row[index] = 0.0

    def restarted(self) -> None:
        """The master has replaced a worker."""
        self.row(self.master)[RESTARTS] += 1


def route_of(path: str) -> int:
    """The number of a path's route; names of models are folded, since anybody can invent some."""
    number = _NUMBER.get(path)
    if number is not None:
        return number
    if path.startswith("/models/"):
        invoke = path.endswith("/invoke")
        return _NUMBER["/models/{name}/invoke" if invoke else "/models/{name}"]
    return _OTHER


def count_response(row: memoryview[float], route: int, status: int) -> None:
    """Count an answer; a status that is none is counted as 599."""
    place = status - _LEAST_STATUS
    if not 0 <= place < _STATUSES:
        place = _STATUSES - 1
    row[_RESPONSES + route * _STATUSES + place] += 1


def responses(numbers: list[float]) -> list[tuple[str, int, float]]:
    """Route, status and count of every kind of answer that was given."""
    return [
        (ROUTES[place // _STATUSES], _LEAST_STATUS + place % _STATUSES, count)
        for place, count in enumerate(numbers[_RESPONSES:])
        if count
    ]
