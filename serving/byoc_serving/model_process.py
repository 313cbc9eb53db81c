"""A process that owns one model on one device and answers any number of fronts.

One thread: it takes what has arrived during the last forward pass, runs it, sends the answers, and
sleeps only when there is nothing to do; so a batch costs one wake-up, and no lock. Generic: it
knows an engine, a listening socket and shared memory, not where they come from.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving import wire
from byoc_serving.carriage import unpack
from byoc_serving.conversation import Messages
from byoc_serving.deadline import ABANDONED
from byoc_serving.errors import RequestError
from byoc_serving.exchange import error_response
from byoc_serving.link import Link
from byoc_serving.outflow import Outflow
from byoc_serving.running import LIMIT
from byoc_serving.streaming import Stream

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from byoc_serving.arena import Arena, Region
    from byoc_serving.engine import Engine
    from byoc_serving.exchange import Invocation, Response
    from byoc_serving.running import Running

log = logging.getLogger("byoc_serving")

#: The exit code of a process whose device is no longer to be trusted.
DEVICE_LOST = 70
_IDLE_S = 1.0


@dataclass(frozen=True)
class Place:
    """Where a model process stands among the others.

    Attributes:
        peer: its number.
        incarnation: how often a process of this number was started before.
        listener: a Unix socket that fronts connect to; it outlives the process.
        arena: shared with the fronts.
        running: where it says what it runs.
    """

    peer: int
    incarnation: int
    listener: socket.socket
    arena: Arena
    running: Running


class _Front:
    """A front's connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.seat = -1
        self.region: Region | None = None
        self.open = True


class ModelProcess:
    """The loop of a model process.

    Args:
        place: where it stands.
        engine: its model, loaded by ``serve``; made with ``encode=arrays``.
        over: asked now and then; True ends the loop.
    """

    def __init__(self, place: Place, engine: Engine, over: Callable[[], bool]) -> None:
        self._place = place
        self._engine = engine
        self._over = over
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[tuple[_Front, wire.Message]] = deque()
        self._fronts: set[_Front] = set()
        self._outflow = Outflow()
        #: Of what waits: nobody waits for the answers.
        self._abandoned: set[tuple[_Front, int]] = set()

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Answer until it is over; the model is loaded.

        Args:
            on_ready: called once, when requests are taken.
        """
        place = self._place
        place.listener.settimeout(0)
        place.running.done(place.peer, place.incarnation)
        self._selector.register(place.listener, selectors.EVENT_READ)
        self._selector.register(self._outflow.wake, selectors.EVENT_READ, self._outflow)
        self._limit = min(self._engine.max_batch_items, LIMIT)
        self._poll(0)
        on_ready()
        while not (self._over() and not self._fronts):
            self._poll(0 if self._waiting else _IDLE_S)
            batch = self._take()
            if batch:
                self._run(batch)

    def _poll(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            if key.data is self._outflow:
                for front in self._outflow.pump():
                    self._flush(front)
                continue
            if not isinstance(key.data, _Front):
                self._accept()
                continue
            if events & selectors.EVENT_WRITE:
                self._flush(key.data)
            if events & selectors.EVENT_READ:
                self._read(key.data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._place.listener.accept()
                sock.settimeout(0)
                front = _Front(Link(sock))
                self._fronts.add(front)
                self._selector.register(sock, selectors.EVENT_READ, front)
                engine, place = self._engine, self._place
                front.link.queue(
                    (
                        *(wire.HELLO, place.incarnation),
                        *(engine.decodes_itself, engine.plain),
                        *(engine.handler.origin, engine.device),
                        engine.handler.bidirectional_paths,
                    )
                )
                self._flush(front)

    def _read(self, front: _Front) -> None:
        messages, front.open = front.link.receive()
        for message in messages:
            if message[0] == wire.RUN:
                self._waiting.append((front, message))
            elif message[0] == wire.FREE:
                if front.region is not None:
                    front.region.give(message[1], message[2])
            elif message[0] == wire.HELLO:
                front.seat = message[1]
                front.region = self._place.arena.answers(front.seat, self._place.peer)
            elif message[0] == wire.TALK:
                self._talk(front, message[1], unpack(None, b"", message[2]))
            elif not self._outflow.control(front, message) and message[0] == wire.CANCEL:
                self._abandoned.add((front, message[1]))
        if not front.open:
            self._selector.unregister(front.link.socket)
            front.link.close()
            self._fronts.discard(front)
            self._outflow.drop(front)

    def _talk(self, front: _Front, identifier: int, invocation: Invocation) -> None:
        """Begin a bidirectional stream, or say why not."""
        messages = Messages()
        try:
            stream = self._engine.converse(invocation, messages)
        except RequestError as error:
            stream = Stream()
            stream.answer(error_response(error, invocation.request_id))
        self._outflow.talk(front, front.link, identifier, stream, messages)

    def _flush(self, front: _Front) -> None:
        if not front.open:
            return
        link = front.link
        everything = link.flush()
        if everything is link.blocked:
            link.blocked = not everything
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.blocked else 0)
            self._selector.modify(link.socket, events, front)

    def _take(self) -> list[tuple[_Front, wire.Message]]:
        """The next batch; a request that was running when a process died stays alone."""
        batch: list[tuple[_Front, wire.Message]] = []
        while self._waiting and len(batch) < self._limit:
            front, message = self._waiting[0]
            alone = message[2]
            if alone and batch:
                break
            self._waiting.popleft()
            if self._abandoned and (front, message[1]) in self._abandoned:
                self._answer(front, message[1], ABANDONED)
                self._flush(front)
                continue
            if front.open:
                batch.append((front, message))
            if alone:
                break
        if not self._waiting:
            self._abandoned.clear()
        return batch

    def _run(self, batch: list[tuple[_Front, wire.Message]]) -> None:
        place = self._place
        place.running.begin(
            place.peer, place.incarnation, [(front.seat, message[1]) for front, message in batch]
        )
        invocations = [self._invocation(message) for _, message in batch]
        try:
            responses = self._engine.run(invocations)
        except BaseException as error:  # noqa: BLE001 - every item is answered, and the thread lives
            responses = [self._engine.rescue(invocation, error) for invocation in invocations]
        if self._engine.device_lost:
            # Nothing is answered: the fronts ask the replacement, one at a time.
            log.error("%s failed; process %d is replaced", self._engine.device, os.getpid())
            logging.shutdown()
            os._exit(DEVICE_LOST)
        for (front, message), response in zip(batch, responses, strict=True):
            self._answer(front, message[1], response)
        # Sent before it is no longer said to run: an answer may come twice, never not at all.
        for front in {front for front, _ in batch}:
            self._flush(front)
        place.running.done(place.peer, place.incarnation)

    def _invocation(self, message: wire.Message) -> Invocation:
        _, _, _, form, offset, size, payload, enclosed = message
        # Copied: a handler may keep or change what it gets, and a replay needs it as it was.
        body = payload if offset < 0 else bytes(self._place.arena.view[offset : offset + size])
        return unpack(form, body, enclosed)

    def _answer(self, front: _Front, identifier: int, response: Response) -> None:
        if response.stream is not None and not front.open:
            response.stream.cancel()
            return
        if response.stream is not None:
            self._outflow.add(front, front.link, identifier, response.stream)
            return
        body: Any = response.body
        array = None
        if not isinstance(body, bytes):
            array = (body.dtype.str, body.shape)
            body = memoryview(body).cast("B") if body.nbytes else b""
        size, offset, payload = len(body), -1, b""
        if size > wire.INLINE_BYTES and front.region is not None:
            taken = front.region.take(size)
            offset = -1 if taken is None else taken
        if offset >= 0:
            self._place.arena.view[offset : offset + size] = body
        else:
            payload = bytes(body)
        front.link.queue(
            (
                *(wire.DONE, identifier, response.status, response.content_type),
                *(response.headers, array, offset, size, payload),
            )
        )


def arrays(prediction: Any, kind: str) -> Any:
    """Stands for the codecs in a model process: arrays stay arrays, the front encodes them."""
    import numpy as np  # noqa: PLC0415 - imported by now

    from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now
    from byoc_serving.codecs.plain import rows_of  # noqa: PLC0415 - numpy is imported by now

    if hasattr(prediction, "detach") or isinstance(prediction, np.ndarray):
        data = np.asarray(rows_of(prediction), order="C")
        if data.dtype.kind in "fiub":
            return data
    return codecs.encode(prediction, kind)
