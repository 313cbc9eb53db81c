"""A model process's streams on their way to the fronts: chunks leave with the loop's next turn."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving import wire

if TYPE_CHECKING:
    from collections.abc import Hashable

    from byoc_serving.conversation import Messages
    from byoc_serving.exchange import Response
    from byoc_serving.link import Link
    from byoc_serving.streaming import Stream

Key = tuple[Any, int]


@dataclass
class _Flow:
    stream: Stream[Response]
    link: Link
    #: What the client says, in a bidirectional stream.
    messages: Messages | None = None
    headed: bool = False
    paused: bool = False
    told_messages: int = 0
    told_bytes: int = 0


class Outflow:
    """The streams of a model process; used in its loop, but for what the streams' threads tell.

    Attributes:
        wake: a descriptor that can be read when ``pump`` has something to do.
    """

    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._news: deque[Key] = deque()
        self._flows: dict[Key, _Flow] = {}

    def add(self, front: Hashable, link: Link, identifier: int, stream: Stream[Response]) -> None:
        """Send a stream as the answer to a request of a front's."""
        link.queue((wire.STREAM, identifier))
        self._begin((front, identifier), _Flow(stream, link))

    def talk(
        self,
        front: Hashable,
        link: Link,
        identifier: int,
        stream: Stream[Response],
        messages: Messages,
    ) -> None:
        """Send a bidirectional stream; ``control`` hands on what its client says."""
        key = (front, identifier)
        messages.on_take(lambda: self._tell(key))
        self._begin(key, _Flow(stream, link, messages))

    def _begin(self, key: Key, flow: _Flow) -> None:
        self._flows[key] = flow
        flow.stream.listen(lambda: self._tell(key))

    def _tell(self, key: Key) -> None:
        self._news.append(key)
        # A full counter wakes the loop as well.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.wake, 1)

    def pump(self) -> set[Any]:
        """Queue what is new; the fronts whose links have to be flushed."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        keys: dict[Key, None] = {}
        while self._news:
            keys[self._news.popleft()] = None
        for key in keys:
            flow = self._flows.get(key)
            if flow is not None:
                self._move(key, flow)
        return {front for front, _ in keys}

    def _move(self, key: Key, flow: _Flow) -> None:
        stream, identifier = flow.stream, key[1]
        head = stream.head
        if head is not None and not flow.headed:
            flow.headed = True
            flow.link.queue(
                (
                    *(wire.HEAD, identifier, head.status, head.content_type, head.headers),
                    *(head.body, stream.whole),
                )
            )
        if flow.headed and not flow.paused:
            chunks = stream.take()
            if chunks:
                flow.link.queue((wire.CHUNKS, identifier, [bytes(chunk) for chunk in chunks]))
        if flow.messages is not None:
            self._tell_taken(flow, flow.messages, identifier)
        if stream.ended:
            flow.link.queue((wire.END, identifier, stream.broken))
            del self._flows[key]

    def _tell_taken(self, flow: _Flow, messages: Messages, identifier: int) -> None:
        """Tell the front how far the handler has come, so that it sends more."""
        taken, size = messages.taken_messages, messages.taken_bytes
        if taken > flow.told_messages:
            more = (taken - flow.told_messages, size - flow.told_bytes)
            flow.told_messages, flow.told_bytes = taken, size
            flow.link.queue((wire.TAKEN, identifier, *more))

    def control(self, front: Hashable, message: wire.Message) -> bool:
        """A front cancels, pauses or resumes a stream, or hands on what its client says.

        Returns:
            False when there is no such stream.
        """
        key = (front, message[1])
        flow = self._flows.get(key)
        if flow is None:
            return False
        if message[0] in {wire.SAY, wire.HUSH}:
            if flow.messages is not None:
                flow.messages.end() if message[0] == wire.HUSH else flow.messages.put(message[2])
            return True
        if message[0] == wire.CANCEL:
            flow.stream.cancel()
        else:
            flow.paused = message[0] == wire.PAUSE
        self._tell(key)
        return True

    def drop(self, front: Hashable) -> None:
        """A front is gone: nobody reads its streams."""
        for key in [key for key in self._flows if key[0] is front]:
            self._flows.pop(key).stream.cancel()
