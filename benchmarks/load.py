"""A load generator that checks every answer: closed loop for a maximum, open loop for the rest.

The open loop sends on a schedule, whether or not the server keeps up, and counts latency from the
moment at which a request was due: a server that stalls cannot hide it (no coordinated omission).
One process, one event loop; it shares the machine with the server, so a maximum measured here is
lower than one that wrk measures.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import math
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: What became of a request that got no right answer with status 200; others keep their status.
WRONG = -1
REFUSED = -2
BROKEN = -3
TIMED_OUT = -4
NAMES = {WRONG: "wrong", REFUSED: "refused", BROKEN: "broken", TIMED_OUT: "timed out"}
RETRY_S = 0.02


@dataclass(frozen=True)
class Target:
    """Where requests go, complete and ready to be written, and how answers are checked."""

    port: int
    requests: Sequence[bytes]
    right: Callable[[int, bytes], bool]
    host: str = "127.0.0.1"


def render(route: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 request."""
    lines = [f"POST {route} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass
class Tally:
    """Every request: when it was due (seconds from the beginning), its latency, its outcome."""

    began: float = field(default_factory=time.monotonic)
    due: array.array[float] = field(default_factory=lambda: array.array("d"))
    latency_s: array.array[float] = field(default_factory=lambda: array.array("f"))
    outcome: array.array[int] = field(default_factory=lambda: array.array("h"))

    def add(self, due: float, outcome: int) -> None:
        """A request has ended; ``due`` on the monotonic clock."""
        self.due.append(due - self.began)
        self.latency_s.append(time.monotonic() - due)
        self.outcome.append(outcome)

    def between(self, start_s: float, end_s: float) -> dict[str, Any]:
        """Rates, latencies of good answers and outcomes of requests due in a part of the run."""
        chosen = [n for n, due in enumerate(self.due) if start_s <= due < end_s]
        good = sorted(self.latency_s[n] for n in chosen if self.outcome[n] == 200)
        counts = Counter(NAMES.get(self.outcome[n], str(self.outcome[n])) for n in chosen)
        wall = max(end_s - start_s, 1e-9)
        return {
            "asked_per_s": round(len(chosen) / wall, 1),
            "goodput_per_s": round(len(good) / wall, 1),
            "p50_ms": round(1e3 * quantile(good, 0.5), 2),
            "p99_ms": round(1e3 * quantile(good, 0.99), 2),
            "max_ms": round(1e3 * good[-1], 2) if good else math.nan,
            "outcomes": dict(counts),
        }

    def goodput(self, start_s: float, end_s: float) -> float:
        """Right answers a second that came in a part of the run, whenever they were due."""
        came = sum(
            outcome == 200 and start_s <= due + latency < end_s
            for due, latency, outcome in zip(self.due, self.latency_s, self.outcome, strict=True)
        )
        return came / max(end_s - start_s, 1e-9)

    def failed(self, *excused: int) -> int:
        """Requests without a right answer, but for outcomes that are excused."""
        return sum(outcome not in {200, *excused} for outcome in self.outcome)


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which a part of the sorted values lies; NaN when there are none."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request on it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self.transport: Any = None
        self.due: float | None = None
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, number: int, due: float) -> None:
        self.number, self.due = number, due
        requests = self._load.target.requests
        self.transport.write(requests[number % len(requests)])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = _content_length(head)
        if length is None:
            self.transport.abort()
            return
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        status = int(head[9:12])
        if status == 200 and not self._load.target.right(self.number, body):
            status = WRONG
        if b"connection: close" in head:
            self.transport.close()
        due, self.due = self.due, None
        if due is not None:
            self._load.answered(self, due, status)

    def connection_lost(self, exc: Exception | None) -> None:
        _ = exc
        self._load.lost(self)


def _content_length(head: bytes) -> int | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return None


class Load:
    """A run against one target.

    Args:
        target: where to.
        most_connections: kept open at once; requests beyond wait here, and their clock runs.
    """

    def __init__(self, target: Target, most_connections: int) -> None:
        self.target = target
        self.tally = Tally()
        self._most = most_connections
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._waiting: deque[float] = deque()
        self._connecting = 0
        self._number = 0
        self._again = False
        self._progress = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open_loop(
        self,
        per_s: float,
        seconds: float,
        grace_s: float = 60.0,
        stop: asyncio.Event | None = None,
    ) -> Tally:
        """Send at a fixed rate, for a time or until told; then wait for what is under way."""
        self.tally = Tally()
        began, sent, total = self.tally.began, 0, per_s * seconds
        while sent < total and not (stop and stop.is_set()):
            now = time.monotonic()
            while sent < total and began + sent / per_s <= now:
                self._send(began + sent / per_s)
                sent += 1
            await asyncio.sleep(0.001)
        return await self._finish(grace_s)

    async def closed_loop(
        self,
        connections: int,
        seconds: float,
        grace_s: float = 60.0,
        stop: asyncio.Event | None = None,
    ) -> Tally:
        """Ask on each connection as soon as its last answer is there, for a time or until told."""
        self.tally = Tally()
        self._again = True
        for _ in range(connections):
            self._send(time.monotonic())
        if stop is None:
            await asyncio.sleep(seconds)
        else:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), seconds)
        self._again = False
        return await self._finish(grace_s)

    async def _finish(self, grace_s: float) -> Tally:
        deadline = time.monotonic() + grace_s
        while self._busy() and (left := deadline - time.monotonic()) > 0:
            self._progress.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._progress.wait(), left)
        for due in [*self._waiting, *(c.due for c in self._open if c.due is not None)]:
            self.tally.add(due, TIMED_OUT)
        self._waiting.clear()
        for connection in list(self._open):
            connection.due = None
            connection.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        return self.tally

    def _busy(self) -> bool:
        return bool(self._waiting) or any(c.due is not None for c in self._open)

    def _send(self, due: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                self._number += 1
                connection.ask(self._number, due)
                return
        self._waiting.append(due)
        self._connect_more()

    def _connect_more(self) -> None:
        if (
            self._connecting < len(self._waiting)
            and len(self._open) + self._connecting < self._most
        ):
            self._connecting += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self.target.host, self.target.port
            )
        except OSError:
            self._connecting -= 1
            if self._waiting:
                self.tally.add(self._waiting.popleft(), REFUSED)
                self._progress.set()
            if self._again:
                await asyncio.sleep(RETRY_S)
                self._send(time.monotonic())
            return
        self._connecting -= 1
        self._open.add(connection)
        self._free(connection)

    def _free(self, connection: _Connection) -> None:
        if connection.transport.is_closing():
            return
        if self._waiting:
            self._number += 1
            connection.ask(self._number, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def answered(self, connection: _Connection, due: float, outcome: int) -> None:
        """A connection has its answer and is free again."""
        self.tally.add(due, outcome)
        self._progress.set()
        if self._again:
            self._waiting.append(time.monotonic())
        self._free(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone; with a request on it, that one is broken."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        due, connection.due = connection.due, None
        if due is not None:
            self.tally.add(due, BROKEN)
            self._progress.set()
            if self._again:
                self._waiting.append(time.monotonic())
        self._connect_more()


def allow_many_connections() -> None:
    """Raise the limit of open files as far as this process may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def find_maximum(target: Target, seconds: float, connections: int = 32) -> float:
    """Right answers a second in a closed loop, after a warm-up of two seconds.

    Raises:
        RuntimeError: an answer was wrong or missing.
    """
    load = Load(target, connections)
    tally = await load.closed_loop(connections, seconds + 2.0)
    if tally.failed():
        raise RuntimeError(f"the maximum has errors: {tally.between(0, math.inf)['outcomes']}")
    rate: float = tally.between(2.0, seconds + 2.0)["goodput_per_s"]
    return rate
