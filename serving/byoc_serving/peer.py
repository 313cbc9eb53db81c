"""A model process as one front sees it: one number, one address, any number of incarnations."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc_serving import wire
from byoc_serving.inflow import Inflow
from byoc_serving.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.conversation import Messages
    from byoc_serving.drivers import Driver
    from byoc_serving.exchange import Invocation, Response
    from byoc_serving.streaming import Stream

_RETRY_S = 0.02


@dataclass
class Pending:
    """A request that a model process has, or will have.

    Attributes:
        invocation: whose it is.
        message: what asks for it.
        offset: its block in the arena; -1: it has none.
        size: the block's bytes.
        crashes: processes that died while they ran it.
    """

    invocation: Invocation
    message: wire.Message
    offset: int
    size: int
    crashes: int = 0

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        future = self.invocation.future
        return future is not None and bool(future.cancelled())

    @property
    def identifier(self) -> int:
        """Its number in the messages."""
        number: int = self.message[1]
        return number

    def isolate(self) -> None:
        """From now on it is to be run alone, so that only the guilty one dies of it."""
        self.message = (*self.message[:2], True, *self.message[3:])


@dataclass(frozen=True)
class Hello:
    """What a model process says of itself.

    Attributes:
        incarnation: which process of its number it is.
        decodes: the front decodes bodies.
        plain: no function of the user's sees a request.
        origin: where the handler's functions come from.
        device: where the model is.
        paths: where WebSockets are taken.
    """

    incarnation: int = -1
    decodes: bool = False
    plain: bool = False
    origin: str = "none"
    device: str = "cpu"
    paths: tuple[str, ...] = ()


class Peer:
    """The connection and what has gone over it. Called in the driver's thread, but for ``send``.

    Args:
        number: the model process's.
        address: its Unix socket.
        seat: the front's number.
        stream_timeout_s: how long a streaming answer may last.
        on_answers: gets the requests that are done, with their messages.
        on_lost: gets the requests that were not, when the process has ended.
    """

    def __init__(
        self,
        number: int,
        address: str,
        seat: int,
        stream_timeout_s: float,
        on_answers: Callable[[Peer, list[tuple[Pending, wire.Message]]], None],
        on_lost: Callable[[Peer, Hello | None, list[Pending]], None],
    ) -> None:
        self.number = number
        self._address = address
        self._seat = seat
        self._on_answers = on_answers
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._driver: Driver | None = None
        self._flushing = False
        self.inflow = Inflow(stream_timeout_s, self._control)
        self.pending: dict[int, Pending] = {}
        #: What the living process has said; None: none lives, or it still loads.
        self.hello: Hello | None = None

    def start(self, driver: Driver) -> None:
        """Connect as soon as the driver can."""
        self._driver = driver
        driver.soon(self._connect)

    def close(self) -> None:
        """End the connection."""
        self._driver = None
        if self._link is not None:
            self._link.close()

    def send(self, pending: Pending) -> None:
        """Ask for a request; safe in any thread."""
        with self._lock:
            self.pending[pending.identifier] = pending
            if self._link is not None:
                self._link.queue(pending.message)
        self._flush_soon()

    def talk(
        self, identifier: int, messages: Messages, enclosed: tuple[object, ...]
    ) -> Stream[Response]:
        """Begin a bidirectional stream; call on the driver's loop, while a process lives."""
        self._control((wire.TALK, identifier, enclosed))
        return self.inflow.talk(identifier, messages)

    def free(self, offset: int, size: int) -> None:
        """An answer's block has been read."""
        self._control((wire.FREE, offset, size))

    def _control(self, message: wire.Message) -> None:
        """Tell the living process; the next one would not know what is meant."""
        link = self._link
        if link is not None:
            link.queue(message)
            self._flush_soon()

    def sweep(self) -> None:
        """Tell the process of requests whose clients have left; it answers them without a run."""
        if self._link is None:
            return
        with self._lock:
            left = [p.identifier for p in self.pending.values() if p.abandoned]
        for identifier in left:
            # Again each time: it may be another process than the last time.
            self._control((wire.CANCEL, identifier))

    def take_all(self) -> list[Pending]:
        """All requests, which are no longer this peer's."""
        with self._lock:
            pending, self.pending = self.pending, {}
        return list(pending.values())

    def _flush_soon(self) -> None:
        # What is queued until then leaves as one frame.
        if not self._flushing and self._driver is not None:
            self._flushing = True
            self._driver.soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        link, driver = self._link, self._driver
        if link is None or driver is None:
            return
        everything = link.flush()
        if everything is link.blocked:
            link.blocked = not everything
            self._watch(driver, link)

    def _watch(self, driver: Driver, link: Link) -> None:
        writable = self._flush if link.blocked else None
        driver.watch(link.socket, lambda: self._readable(link), writable)

    def _connect(self) -> None:
        driver = self._driver
        if driver is None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(0)
        try:
            sock.connect(self._address)
        except OSError:
            # The queue of the listening socket is full, or it is not there yet.
            sock.close()
            driver.later(_RETRY_S, self._connect)
            return
        link = Link(sock)
        link.queue((wire.HELLO, self._seat))
        with self._lock:
            self._link = link
            for pending in self.pending.values():
                link.queue(pending.message)
        self._watch(driver, link)
        self._flush()

    def _readable(self, link: Link) -> None:
        if self._link is not link:
            return
        messages, alive = link.receive()
        answers: list[tuple[Pending, wire.Message]] = []
        for message in messages:
            if message[0] in {wire.DONE, wire.STREAM}:
                pending = self.pending.pop(message[1], None)
                if pending is not None:
                    answers.append((pending, message))
            elif message[0] == wire.HELLO:
                self.hello = Hello(*message[1:])
            else:
                if answers:
                    # A stream must be known before its head comes.
                    self._on_answers(self, answers)
                    answers = []
                self.inflow.take(message)
        if answers:
            self._on_answers(self, answers)
        if not alive:
            self._lost(link)

    def _lost(self, link: Link) -> None:
        if self._driver is not None:
            self._driver.forget(link.socket)
        link.close()
        with self._lock:
            self._link = None
        last, self.hello = self.hello, None
        self.inflow.lost()
        self._on_lost(self, last, self.take_all())
        self._connect()
