"""One place that is told of every batch and every answer: metrics, access log, spans."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from byoc_serving import meter, tracing
from byoc_serving.exchange import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byoc_serving.access import AccessLog
    from byoc_serving.exchange import Exchange, Invocation
    from byoc_serving.meter import Ledger
    from byoc_serving.tracing import Tracer


class Observer:
    """What one process knows of its own work.

    Args:
        ledger: where all processes count.
        row: this process's.
    """

    def __init__(self, ledger: Ledger, row: int) -> None:
        self.ledger = ledger
        self._row = ledger.row(row)
        self._lock = threading.Lock()
        #: Set by who starts the worker, when asked for.
        self.access: AccessLog | None = None
        #: Whether invocations get spans; the SDK is imported when the model is there.
        self.traces = False
        self._tracer: Tracer | None = None

    def batch(self, invocations: Sequence[Invocation], began: float, forward_s: float) -> None:
        """A batch has been answered; call once a batch.

        Args:
            invocations: the requests in it.
            began: when the model took them, in seconds of the monotonic clock.
            forward_s: how long it predicted.
        """
        batch = Batch(began, time.monotonic(), forward_s, len(invocations))
        row = self._row
        with self._lock:
            meter.BATCH.observe(row, batch.requests)
            meter.FORWARD.observe(row, forward_s)
            for invocation in invocations:
                invocation.batch = batch
                # A process that did not queue it does not know.
                if invocation.queued_at:
                    meter.QUEUE_WAIT.observe(row, began - invocation.queued_at)

    def reported(self, invocation: Invocation, batch: Batch, *, first: bool) -> None:
        """Another process has answered a request.

        Args:
            invocation: the request, which this process queued.
            batch: what it was answered in.
            first: of the answers of this batch.
        """
        row = self._row
        invocation.batch = batch
        with self._lock:
            if first:
                meter.BATCH.observe(row, batch.requests)
                meter.FORWARD.observe(row, batch.forward_s)
            if invocation.queued_at:
                meter.QUEUE_WAIT.observe(row, batch.began - invocation.queued_at)

    def restarted(self) -> None:
        """A process of this one's has ended on its own and is replaced."""
        with self._lock:
            self._row[meter.RESTARTS] += 1

    def invoked(self, exchange: Exchange, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """An invocation has arrived; call before it is admitted."""
        exchange.headers = headers
        if self._tracer is not None:
            exchange.trace = self._tracer.begin(exchange)

    def admitted(self, exchange: Exchange, invocation: Invocation) -> None:
        """An invocation has been admitted."""
        exchange.invocation = invocation
        invocation.span = exchange.trace

    def close(self) -> None:
        """The worker ends: send what waits to be sent."""
        if self._tracer is not None:
            self._tracer.close()

    def response(self, exchange: Exchange) -> None:
        """An answer has left; call once a request, after it was sent."""
        seconds = time.monotonic() - exchange.began
        route = meter.route_of(exchange.path)
        row = self._row
        # Threads of the WSGI front count at the same time.
        with self._lock:
            meter.count_response(row, route, exchange.status)
            meter.DURATION[route].observe(row, seconds)
            if route in meter.INVOKED:
                if exchange.invocation is not None:
                    meter.RECEIVED.observe(row, exchange.invocation.size_bytes)
                meter.SENT.observe(row, exchange.sent_bytes)
        if self.access is not None:
            self.access.write(exchange, seconds)
        if self._tracer is not None and exchange.trace is not None:
            self._tracer.end(exchange, exchange.trace)

    def loaded(self, seconds: float) -> None:
        """The model has been loaded, and whatever the handler needs has been installed."""
        self._row[meter.LOAD_SECONDS] = seconds
        self.begin_traces()

    def begin_traces(self) -> None:
        """Import the SDK, where spans are wanted."""
        if self.traces:
            self._tracer = tracing.make()

    def tick(self, in_flight: int) -> None:
        """Invocations admitted and not answered, as of now; call a few times a second."""
        self._row[meter.IN_FLIGHT] = in_flight

    def gpu(self, allocated_bytes: int, reserved_bytes: int) -> None:
        """What torch holds of its GPU."""
        row = self._row
        row[meter.GPU_ALLOCATED] = allocated_bytes
        row[meter.GPU_RESERVED] = reserved_bytes
