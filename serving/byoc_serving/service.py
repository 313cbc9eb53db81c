"""What both fronts call: ping, admission, invocation. HTTP's rules, but no HTTP server."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from byoc_serving import health
from byoc_serving.batcher import Admission, Batcher, FullError
from byoc_serving.errors import (
    BadBodyError,
    BodyTooLargeError,
    MethodNotAllowedError,
    RequestError,
    StartError,
    UnavailableError,
)
from byoc_serving.exchange import Invocation, Response, error_response, request_id
from byoc_serving.handler import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from byoc_serving.engine import Engine
    from byoc_serving.settings import Settings
    from byoc_serving.table import State, Table

log = logging.getLogger(__name__)

#: Bodies that are decoded where they are received; longer ones would hold up a ping there.
DECODE_AT_ONCE_BYTES = 64 * 1024

Delivery = list[tuple[Invocation, Response]]


class Service:
    """One worker's share of the server.

    Args:
        settings: the server's.
        table: what all workers know of each other.
        slot: this worker's row.
        engine: its model, not loaded yet.
    """

    def __init__(self, settings: Settings, table: Table, slot: int, engine: Engine) -> None:
        self.settings = settings
        self.table = table
        self.slot = slot
        self.engine = engine
        self.admission = Admission(settings.queue_requests, settings.queue_bytes)
        #: Set when loading has ended, well or badly; ``failure`` says which.
        self.settled = threading.Event()
        self.failure: str | None = None
        self._deliver: Callable[[Delivery], None] = settle
        self._batcher: Batcher[Invocation, Response] = Batcher(
            engine.run, self._delivered, engine.rescue
        )
        self._thread: threading.Thread | None = None

    def start(
        self,
        deliver: Callable[[Delivery], None] | None = None,
        on_settled: Callable[[], None] | None = None,
    ) -> None:
        """Start the model thread: it loads, then answers until ``close``.

        Args:
            deliver: how the front gets finished batches; by default each future is set.
            on_settled: called in the model thread when loading has ended.
        """
        if deliver is not None:
            self._deliver = deliver
        self._thread = threading.Thread(
            target=self._work, args=(on_settled,), name="model", daemon=True
        )
        self._thread.start()

    def _work(self, on_settled: Callable[[], None] | None) -> None:
        try:
            self.engine.load()
            self._batcher.max_batch_items = self.engine.max_batch_items
        except StartError as error:
            log.debug("loading failed", exc_info=True)
            self.failure = str(error)
        except BaseException as error:
            log.debug("loading failed", exc_info=True)
            self.failure = f"loading the model failed: {explain(error, None)}"
        self.settled.set()
        if on_settled is not None:
            on_settled()
        if self.failure is None:
            self._batcher.serve()

    def close(self, timeout_s: float) -> bool:
        """Answer what is queued, then end the model thread; True when it has ended."""
        self._batcher.close()
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    @property
    def ready(self) -> bool:
        """Whether this worker can answer invocations."""
        return self.settled.is_set() and self.failure is None

    def ping(self, method: str) -> Response:
        """``/ping``."""
        if method not in health.PING_METHODS:
            return self.refusal(
                MethodNotAllowedError(method, "/ping", ", ".join(health.PING_METHODS))
            )
        return health.ping(self.table)

    def refusal(self, error: RequestError, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
        """An error of a request that has no invocation."""
        invocation = Invocation.from_headers(headers) if headers else None
        return error_response(error, invocation.request_id if invocation else request_id())

    def admit(self, headers: Sequence[tuple[bytes, bytes]]) -> Invocation:
        """Take a request in before its body is read; ``release`` it or ``submit`` it afterwards.

        Raises:
            UnavailableError: loading, or full.
            BodyTooLargeError: Content-Length is over the limit.
        """
        if not self.ready:
            raise UnavailableError(health.diagnosis(self.table)[1], "loading")
        invocation = Invocation.from_headers(headers)
        size = invocation.length or 0
        if size > self.settings.max_body_bytes:
            raise BodyTooLargeError(f"{size} bytes", self.settings.max_body_bytes)
        try:
            self.admission.enter(size)
        except FullError as error:
            raise UnavailableError(f"the server is full: {error}; try again", "full") from None
        invocation.size_bytes = size
        return invocation

    def grown(self, invocation: Invocation, received_bytes: int) -> None:
        """More of a body has arrived than admission counted.

        Raises:
            BodyTooLargeError: it is over the limit.
            UnavailableError: there is no room for it.
        """
        if received_bytes <= invocation.size_bytes:
            return
        if received_bytes > self.settings.max_body_bytes:
            raise BodyTooLargeError(
                f"longer than {self.settings.max_body_bytes} bytes", self.settings.max_body_bytes
            )
        try:
            self.admission.grow(received_bytes - invocation.size_bytes)
        except FullError as error:
            raise UnavailableError(f"the server is full: {error}; try again", "full") from None
        invocation.size_bytes = received_bytes

    def release(self, invocation: Invocation) -> None:
        """A request ends without having been submitted."""
        self.admission.leave(invocation.size_bytes)

    def submit(self, invocation: Invocation) -> None:
        """Queue a request whose body is complete; its answer comes through the delivery.

        Raises:
            RequestError: the body is bad, or its type or the accepted ones are not ours.
        """
        if len(invocation.body) != (invocation.length or len(invocation.body)):
            raise BadBodyError(
                f"the body has {len(invocation.body)} bytes, Content-Length says "
                f"{invocation.length}"
            )
        if self.engine.decodes_itself and len(invocation.body) <= DECODE_AT_ONCE_BYTES:
            self.engine.accept(invocation)
            self.engine.decode(invocation)
        self._batcher.submit(invocation)

    def _delivered(self, pairs: Delivery) -> None:
        for invocation, _ in pairs:
            self.admission.leave(invocation.size_bytes)
        self._deliver(pairs)

    def enter(self, state: State, pid: int) -> None:
        """Tell the other processes what this worker does now."""
        self.table.enter(self.slot, state, pid)


def settle(pairs: Delivery) -> None:
    """Set each request's future, unless nobody waits any more."""
    for invocation, response in pairs:
        if not invocation.future.done():
            invocation.future.set_result(response)
