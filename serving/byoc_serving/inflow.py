"""A front's ends of the streams that a model process sends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from byoc_serving import wire
from byoc_serving.errors import UnavailableError
from byoc_serving.exchange import Response, error_response, request_id
from byoc_serving.forwarding import Forwarding
from byoc_serving.streaming import Stream, StreamCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.conversation import Messages


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
        self._forwardings: dict[int, Forwarding] = {}

    def __len__(self) -> int:
        """Streams that have not ended."""
        return len(self._streams)

    def talk(self, identifier: int, messages: Messages) -> Stream[Response]:
        """A bidirectional stream: what the client says goes to the model process from now on."""
        stream = self.open(identifier, None)
        self._forwardings[identifier] = Forwarding(identifier, messages, self._control)
        return stream

    def answer(self, identifier: int) -> Stream[Response]:
        """The stream that answers a request."""
        return self.open(identifier, self._timeout_s)

    def open(self, identifier: int, timeout_s: float | None) -> Stream[Response]:
        """A stream that lasts so long at most; None: as long as it likes."""
        stream: Stream[Response] = Stream(timeout_s)
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
            (stream.answer if whole else stream.open)(Response(status, body, kind, headers))
        elif message[0] == wire.CHUNKS:
            self._feed(identifier, stream, message[2])
        elif message[0] == wire.TAKEN:
            forwarding = self._forwardings.get(identifier)
            if forwarding is not None:
                forwarding.taken(message[2], message[3])
        elif message[0] == wire.END:
            self._hush(identifier)
            del self._streams[identifier]
            self._paused.discard(identifier)
            if message[2]:
                stream.fail()
            else:
                stream.end()

    def _feed(self, identifier: int, stream: Stream[Response], chunks: list[bytes]) -> None:
        with contextlib.suppress(StreamCancelledError):
            for chunk in chunks:
                stream.feed(chunk)
        if stream.full:
            self._paused.add(identifier)
            self._control((wire.PAUSE, identifier))
            if not stream.full:
                # Drained in between, which nobody was waiting for then.
                self._drained(identifier)

    def _hush(self, identifier: int) -> None:
        forwarding = self._forwardings.pop(identifier, None)
        if forwarding is not None:
            forwarding.end()

    def lost(self) -> None:
        """The model process is gone: its streams break off."""
        streams, self._streams = self._streams, {}
        self._paused.clear()
        for identifier in list(self._forwardings):
            self._hush(identifier)
        for stream in streams.values():
            if stream.head is None:
                error = UnavailableError("the model's process was lost before it answered")
                stream.answer(error_response(error, request_id()))
            stream.fail()
