"""The backend of a front whose models are in other processes.

A request stays the front's own until its answer is here: bytes in the front's region of the arena,
the rest in ``Pending``. So a model process may die at any moment: what it was running is asked
again, once, alone; what it had only queued is asked again as if nothing had happened. A request
that was running in two processes that died is answered with 500, so one that kills its process
cannot go on killing. A request that hung alone is answered with 504 and not asked again.
"""

from __future__ import annotations

import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from byoc_serving import drivers, wire
from byoc_serving.backend import Delivery, settle
from byoc_serving.carriage import COPY_AT_ONCE_BYTES, ENCODE_AT_ONCE_BYTES, envelope, pack
from byoc_serving.encoding import encoded, prepare
from byoc_serving.errors import (
    DeadlineError,
    InternalError,
    RequestError,
    UnavailableError,
)
from byoc_serving.exchange import Invocation, Response, error_response
from byoc_serving.faults import classify
from byoc_serving.peer import Hello, Peer, Pending
from byoc_serving.running import End, Left

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from byoc_serving.arena import Arena
    from byoc_serving.conversation import Messages
    from byoc_serving.running import Running
    from byoc_serving.settings import Settings
    from byoc_serving.streaming import Stream

log = logging.getLogger("byoc_serving")

#: Request bodies up to this size travel inside the message.
INLINE_BYTES = 1024
TICK_S = 0.25
#: Model processes that a request may take down with it.
MAX_CRASHES = 2


class Remote:
    """A ``Backend`` that asks model processes.

    Args:
        settings: the server's.
        seat: this front's number in the arena.
        arena: shared with the model processes.
        running: what they say they run.
        addresses: their Unix sockets, in the order of their numbers.
        ready: whether requests may be taken.
        cause: why no process will ever answer, once that is known.
    """

    def __init__(
        self,
        settings: Settings,
        seat: int,
        arena: Arena,
        running: Running,
        addresses: Sequence[str],
        ready: Callable[[], bool],
        cause: Callable[[], str | None],
    ) -> None:
        self.settled = threading.Event()
        self.failure: str | None = None
        self._settings = settings
        self._seat = seat
        self._arena = arena
        self._region = arena.requests(seat)
        self._running = running
        self._is_ready = ready
        self._cause = cause
        self._turn = 0
        self._peers = [
            Peer(number, address, seat, settings.stream_timeout_s, self._answered, self._lost)
            for number, address in enumerate(addresses)
        ]
        #: What the model processes said last; a replacement has the same model.
        self._hello = Hello()
        self._deliver: Callable[[Delivery], None] = settle
        self._ids = itertools.count(1)
        self._driver: drivers.Driver | None = None
        self._pool = ThreadPoolExecutor(2, "bodies")

    @property
    def ready(self) -> bool:
        """Whether the model processes have loaded; a replacement that loads changes nothing."""
        return self._is_ready()

    @property
    def origin(self) -> str:
        """Where the handler's functions come from."""
        return self._hello.origin

    @property
    def device(self) -> str:
        """Where the model is."""
        return self._hello.device

    def start(
        self,
        deliver: Callable[[Delivery], None],
        on_settled: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Connect; requests wait inside until a model process has loaded."""
        self._deliver = deliver
        self._driver = driver = drivers.choose("model processes", loop)
        for peer in self._peers:
            peer.start(driver)
        driver.later(TICK_S, self._tick)
        # numpy takes longer to import than a request may wait.
        self._pool.submit(prepare)
        self.settled.set()
        if on_settled is not None:
            on_settled()

    @property
    def bidirectional_paths(self) -> tuple[str, ...] | None:
        """Where the handler of the model processes takes WebSockets; None: none has said so."""
        hello = self._greeted()
        return None if hello.incarnation < 0 else hello.paths

    def _greeted(self) -> Hello:
        """What a model process has said of itself, a living one if there is one."""
        for peer in self._peers:
            if peer.hello is not None:
                self._hello = peer.hello
        return self._hello

    def converse(self, invocation: Invocation, messages: Messages) -> Stream[Response]:
        """Begin a bidirectional stream with the model process that has the fewest.

        Raises:
            UnavailableError: there is none at the moment. (Unlike a request, what is said on a
                WebSocket cannot be said again to the next one.)
        """
        living = [peer for peer in self._peers if peer.hello is not None]
        if not living:
            raise UnavailableError("the model's process is being replaced; try again", "loading")
        peer = min(living, key=lambda peer: len(peer.inflow))
        return peer.talk(next(self._ids), messages, envelope(invocation, headers=True))

    def defunct(self) -> str | None:
        """See ``Backend``: what may have to be replaced are other processes."""

    def close(self, timeout_s: float) -> bool:
        """End the connections; the fronts have answered everything before."""
        _ = timeout_s
        self._pool.shutdown(wait=False)
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()
        for peer in self._peers:
            peer.close()
        return True

    def submit(self, invocation: Invocation) -> None:
        """Hand a request to the model process with the fewest.

        Raises:
            RequestError: the body is bad, its type or the accepted ones are not ours, or the
                arena is full.
        """
        if len(invocation.body) > COPY_AT_ONCE_BYTES:
            self._pool.submit(self._submit_large, invocation)
        else:
            self._submit(invocation)

    def _submit_large(self, invocation: Invocation) -> None:
        try:
            self._submit(invocation)
        except RequestError as error:
            self._deliver([(invocation, error_response(error, invocation.request_id))])
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            fault = classify("batch", error, invocation, default_predict=False)
            self._deliver([(invocation, error_response(fault, invocation.request_id))])

    def _submit(self, invocation: Invocation) -> None:
        hello = self._hello
        form, body = pack(invocation, hello, self._settings)
        offset, size, payload = self._store(body)
        message = (
            *(wire.RUN, next(self._ids), False, form, offset, size, payload),
            envelope(invocation, headers=not hello.plain),
        )
        invocation.body = b""
        self._send(Pending(invocation, message, offset, size))

    def _store(self, body: Any) -> tuple[int, int, bytes]:
        """Where the bytes are: (offset, size, payload)."""
        size = len(body)
        if size <= INLINE_BYTES or size > self._region.size:
            return -1, size, bytes(body)
        offset = self._region.take(size)
        if offset is None:
            raise UnavailableError(
                f"the server is full: the waiting requests hold {self._region.used} bytes of "
                "shared memory; try again",
                "full",
            )
        self._arena.view[offset : offset + size] = body
        return offset, size, b""

    def _send(self, pending: Pending) -> None:
        """Give a request to a living process if there is one, else to the next to come."""
        peers = self._peers
        # Of equals the next in turn: otherwise the first would get all of a light load.
        self._turn = (self._turn + 1) % len(peers)
        order = peers[self._turn :] + peers[: self._turn]
        min(order, key=lambda peer: (peer.hello is None, len(peer.pending))).send(pending)

    def _answered(self, peer: Peer, answers: list[tuple[Pending, wire.Message]]) -> None:
        """Hand on what is done, but for what takes long to encode."""
        if peer.hello is not None:
            self._hello = peer.hello
        pairs: Delivery = []
        for pending, message in answers:
            self._free(pending)
            if message[0] == wire.STREAM:
                stream = peer.inflow.answer(pending.identifier)
                pairs.append((pending.invocation, Response(200, stream=stream)))
                continue
            _, _, status, kind, headers, array, offset, size, payload = message
            if offset >= 0:
                # Copied now: a replacement of the process may soon write there.
                payload = bytes(self._arena.view[offset : offset + size])
                peer.free(offset, size)
            invocation = pending.invocation
            if array is None:
                pairs.append((invocation, Response(status, payload, kind, headers)))
                continue
            answer = (invocation, status, kind, headers, array, payload)
            if size <= ENCODE_AT_ONCE_BYTES:
                pairs.append(encoded(*answer))
            else:
                self._pool.submit(self._encode_large, *answer)
        if pairs:
            self._deliver(pairs)

    def _encode_large(self, *answer: Any) -> None:
        self._deliver([encoded(*answer)])

    def _free(self, pending: Pending) -> None:
        if pending.offset >= 0:
            self._region.give(pending.offset, pending.size)

    def _lost(self, peer: Peer, last: Hello | None, waiting: list[Pending]) -> None:
        """A process is gone: ask again, what it was running alone and first."""
        left = Left()
        if last is not None:
            left = self._running.left(peer.number, last.incarnation, self._seat)
        pairs: Delivery = []
        suspects = [pending for pending in waiting if pending.identifier in left.ids]
        replays: list[Pending] = []
        for pending in suspects:
            pending.crashes += 1
            error = self._verdict(pending, left)
            if error is None:
                pending.isolate()
                replays.append(pending)
            else:
                pairs.append(self._refused(pending, error))
        for pending in (*replays, *(p for p in waiting if p.identifier not in left.ids)):
            self._send(pending)
        if replays:
            log.info("%d requests of the lost model process are asked again", len(replays))
        if pairs:
            self._deliver(pairs)

    def _refused(self, pending: Pending, error: RequestError) -> tuple[Invocation, Response]:
        self._free(pending)
        invocation = pending.invocation
        return invocation, error_response(error, invocation.request_id)

    def _verdict(self, pending: Pending, left: Left) -> RequestError | None:
        """The error of a request whose process has ended; None: it is asked again."""
        again = pending.crashes < MAX_CRASHES
        if left.end is End.HUNG and not (again and left.count > 1):
            return DeadlineError(
                f"the model has not answered within {self._settings.forward_timeout_s:g} s "
                "(BYOC_FORWARD_TIMEOUT_SECONDS); its process was replaced"
            )
        if not again:
            return InternalError(
                f"the model's process died {pending.crashes} times while it ran this request; "
                "the log says with which signal"
            )
        return None

    def _tick(self) -> None:
        """Tell of clients that have left; answer what waits for a process that will not come."""
        if self._driver is None:
            return
        self._driver.later(TICK_S, self._tick)
        self._greeted()
        for peer in self._peers:
            peer.sweep()
        cause = self._cause()
        if cause is not None:
            error = UnavailableError(cause, "failed")
            pairs = [self._refused(p, error) for peer in self._peers for p in peer.take_all()]
            if pairs:
                self._deliver(pairs)
