"""What both fronts call: ping, admission, invocation. HTTP's rules, but no HTTP server."""

from __future__ import annotations

import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from byoc_serving import health
from byoc_serving.backend import Delivery, settle
from byoc_serving.batcher import Admission, FullError
from byoc_serving.description import Description
from byoc_serving.errors import (
    BadBodyError,
    BodyTooLargeError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from byoc_serving.exchange import Invocation, Response, error_response, request_id
from byoc_serving.exposition import Collector
from byoc_serving.sample import Sample
from byoc_serving.settings import MOST_BODY_BYTES

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from byoc_serving.backend import Backend
    from byoc_serving.conversation import Messages
    from byoc_serving.observer import Observer
    from byoc_serving.sessions import Sessions
    from byoc_serving.settings import Settings
    from byoc_serving.spool import Spooling
    from byoc_serving.streaming import Stream
    from byoc_serving.table import State, Table

log = logging.getLogger("byoc_serving")

#: Of a body's promised length, what is counted before it has come.
RESERVED_BYTES = 1024 * 1024


class Service:
    """One worker's share of the server.

    Args:
        settings: the server's.
        table: what all workers know of each other.
        slot: this worker's row; None: it has none, being a front only.
        backend: what answers, not started yet.
        sessions: of all workers; None where there are none.
        spooling: where long bodies wait; None: in memory.
        observer: told of every answer; None: nobody is.
    """

    def __init__(
        self,
        settings: Settings,
        table: Table,
        slot: int | None,
        backend: Backend,
        sessions: Sessions | None = None,
        spooling: Spooling | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings
        self.table = table
        self.slot = slot
        self.backend = backend
        self.sessions = sessions
        self.spooling = spooling
        # A transform job sends no more at once than it was told to; it must not be refused.
        queue_bytes = MOST_BODY_BYTES if settings.batch else settings.queue_bytes
        self.admission = Admission(settings.admitted_requests, queue_bytes)
        self.observer = observer
        #: Where the description of the loaded model is; set by who makes it.
        self.workspace: Path | None = None
        #: Of the backend's own, for ``/metrics``; set by who makes it.
        self.more_metrics: Callable[[], Iterator[Any]] = lambda: iter(())
        self._deliver: Callable[[Delivery], None] = settle
        self._leaving = False
        #: Called when requests have been answered, in any thread.
        self.on_answers: Callable[[], None] = lambda: None

    @property
    def settled(self) -> threading.Event:
        """Set when the backend's first start has ended, well or badly; ``failure`` says which."""
        return self.backend.settled

    @property
    def failure(self) -> str | None:
        """Why the backend can never answer."""
        return self.backend.failure

    def start(
        self,
        deliver: Callable[[Delivery], None] | None = None,
        on_settled: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Start the backend: it loads, then answers until ``close``.

        Args:
            deliver: how the front gets finished batches; by default each future is set.
            on_settled: called in a thread of the backend's when its first start has ended.
            loop: the running loop, when ``submit`` is only ever called on it.
        """
        if deliver is not None:
            self._deliver = deliver
        self.backend.start(self._delivered, on_settled, loop)

    def close(self, timeout_s: float) -> bool:
        """Answer what is queued, then end the backend; True when it has ended."""
        return self.backend.close(timeout_s)

    @property
    def ready(self) -> bool:
        """Whether this worker can answer invocations."""
        return self.backend.ready

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
        size = self._counted(size)
        try:
            self.admission.enter(size, reserved := min(size, RESERVED_BYTES))
        except FullError as error:
            raise UnavailableError(f"the server is full: {error}; try again", "full") from None
        invocation.size_bytes = reserved
        invocation.deadline = time.monotonic() + self.settings.deadline_s
        return invocation

    def grown(self, invocation: Invocation, received_bytes: int) -> None:
        """More of a body has arrived than admission counted.

        Raises:
            BodyTooLargeError: it is over the limit.
            UnavailableError: there is no room for it.
        """
        counted = self._counted(received_bytes)
        if counted <= invocation.size_bytes and received_bytes <= self.settings.max_body_bytes:
            return
        if received_bytes > self.settings.max_body_bytes:
            raise BodyTooLargeError(
                f"longer than {self.settings.max_body_bytes} bytes", self.settings.max_body_bytes
            )
        try:
            self.admission.grow(counted - invocation.size_bytes)
        except FullError as error:
            raise UnavailableError(f"the server is full: {error}; try again", "full") from None
        invocation.size_bytes = counted

    def _counted(self, size_bytes: int) -> int:
        """How much of a body is in memory."""
        return size_bytes if self.spooling is None else self.spooling.counted(size_bytes)

    def release(self, invocation: Invocation) -> None:
        """A request ends without having been submitted."""
        self._leave(invocation, 500)

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
        if self.observer is not None:
            invocation.queued_at = time.monotonic()
        self.admission.begin()
        try:
            self.backend.submit(invocation)
        except BaseException:
            self.admission.end(1)
            raise

    def converse(
        self, path: str, headers: Sequence[tuple[bytes, bytes]], messages: Messages
    ) -> Stream[Response]:
        """Begin a bidirectional stream on a path.

        Args:
            path: where the client asks for it.
            headers: of the handshake.
            messages: gets what the client sends.

        Raises:
            NotFoundError: the handler takes none there.
            UnavailableError: loading, or full.
        """
        paths = self.backend.bidirectional_paths
        if self.ready and paths is None:
            raise UnavailableError("the model's process is starting; try again", "loading")
        if self.ready and path not in (paths or ()):
            raise NotFoundError(
                f"no WebSocket on {path[:100]}; "
                + (
                    f"there is {', '.join(paths)}"
                    if paths
                    else "this handler has no bidirectional_fn"
                )
            )
        invocation = self.admit(headers)
        try:
            stream = self.backend.converse(invocation, messages)
        except BaseException:
            self.release(invocation)
            raise
        stream.on_done(partial(self._leave, invocation, 200))
        return stream

    def _delivered(self, pairs: Delivery) -> None:
        self.admission.end(len(pairs))
        for invocation, response in pairs:
            if response.stream is None:
                self._leave(invocation, response.status)
            else:
                response.stream.on_done(partial(self._leave, invocation, 200))
        self._deliver(pairs)
        self.on_answers()

    def _leave(self, invocation: Invocation, status: int) -> None:
        self.admission.leave(invocation.size_bytes)
        body, invocation.body = invocation.body, b""
        if not isinstance(body, bytes):
            # A handler that has kept a view of it keeps the file.
            with contextlib.suppress(BufferError):
                body.close()
        if invocation.session is not None and self.sessions is not None:
            self.sessions.end(invocation, status)

    @property
    def collector(self) -> Collector | None:
        """What ``/metrics`` shows; None when it is switched off."""
        if self.observer is None or not self.settings.metrics:
            return None
        facts = {"device": self.backend.device, "front": self.settings.front}
        return Collector(self.observer.ledger, self.table, facts, self.more_metrics)

    def document(self, method: str) -> Response:
        """``/openapi.json``."""
        from byoc_serving import openapi  # noqa: PLC0415 - needs numpy, imported by now

        def document() -> dict[str, Any]:
            description = Description.read(self.workspace) if self.workspace else Description()
            return openapi.document(
                self.settings, description, Sample.find(self.settings.model_dir)
            )

        return openapi.answer(method, document)

    def enter(self, state: State, pid: int) -> None:
        """Tell the other processes what this worker does now."""
        if self.slot is not None:
            self.table.enter(self.slot, state, pid)

    def beat(self) -> bool:
        """Tell the other processes that this worker's loop runs; False when it has to end."""
        if self.observer is not None:
            self.observer.tick(self.admission.items + self.admission.held)
        if self.slot is None:
            return True
        self.table.beat(self.slot)
        cause = self.backend.defunct()
        if cause is not None and not self._leaving:
            self._leaving = True
            self.table.phase(self.slot, cause)
            log.error("%s; this worker is replaced", cause)
        return cause is None
