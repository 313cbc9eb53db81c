"""A front's ends of the streams that a model process sends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from byoc_serving import wire
from byoc_serving.errors import UnavailableError
from byoc_serving.exchange import Response, error_response, request_id
from byoc_serving.streaming import Stream, StreamCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable


class Inflow:
    """Streams by the ids of their requests; messages come in the driver's thread.

    Args:
        timeout_s: how long a stream may last.
        control: sends a message to the model process, from any thread.
    """

    def __init__(self, timeout_s: float, control: Callable[[wire.Message], None]) -> None:
        self._timeout_s = timeout_s
        self._control = control
        self._streams: dict[int, Stream[Response]] = {}
        self._paused: set[int] = set()

    def open(self, identifier: int) -> Stream[Response]:
        """The stream that answers a request."""
        stream: Stream[Response] = Stream(self._timeout_s)
        self._streams[identifier] = stream
        stream.on_cancel(lambda: self._cancelled(identifier))
        stream.on_drain(lambda: self._drained(identifier))
        return stream

    def _cancelled(self, identifier: int) -> None:
        if identifier in self._streams:
            self._control((wire.CANCEL, identifier))

    def _drained(self, identifier: int) -> None:
        if identifier in self._paused:
            self._paused.discard(identifier)
            self._control((wire.RESUME, identifier))

    def take(self, message: wire.Message) -> None:
        """A head, chunks or an end."""
        identifier = message[1]
        stream = self._streams.get(identifier)
        if stream is None:
            return
        if message[0] == wire.HEAD:
            _, _, status, kind, headers, body, whole = message
            head = Response(status, body, kind, headers)
            if whole:
                stream.answer(head)
            else:
                stream.open(head)
        elif message[0] == wire.CHUNKS:
            with contextlib.suppress(StreamCancelledError):
                for chunk in message[2]:
                    stream.feed(chunk)
            if stream.full:
                self._paused.add(identifier)
                self._control((wire.PAUSE, identifier))
                if not stream.full:
                    # Drained in between, which nobody was waiting for then.
                    self._drained(identifier)
        elif message[0] == wire.END:
            del self._streams[identifier]
            self._paused.discard(identifier)
            if message[2]:
                stream.fail()
            else:
                stream.end()

    def lost(self) -> None:
        """The model process is gone: its streams break off."""
        streams, self._streams = self._streams, {}
        self._paused.clear()
        for stream in streams.values():
            if stream.head is None:
                error = UnavailableError("the model's process was lost before it answered")
                stream.answer(error_response(error, request_id()))
            stream.fail()
