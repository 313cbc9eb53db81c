"""One HTTP connection of the event loop: gunicorn's protocol, patient within limits.

gunicorn parses and frames. What is added here: errors in the server's own form, limits on a
client's time (``sweeper``), answers for clients that have closed their sending side, refusals that
a client that is still sending gets to read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from byoc_serving.client import Client
from byoc_serving.errors import (
    BodyTooLargeError,
    RequestError,
    UnavailableError,
    protocol_error,
)
from byoc_serving.frames import Frames, valid_key
from byoc_serving.patience import LINGER_S
from byoc_serving.rendering import rendered, wire
from byoc_serving.short_way import ShortWay

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from byoc_serving.exchange import Response


class Protocol(ShortWay):
    """A connection that its worker knows, so that a drain can close the idle ones."""

    _callback_parser: Any
    _closed: bool

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        #: Bytes of bodies that have come.
        self.body_bytes = 0
        #: Answered for good; what still comes is thrown away.
        self.lingering = False
        #: What has begun a request waits unread (``gate``).
        self.held = False
        self._answering = False
        self._malformed = False
        self._client: Client | None = None
        self._watched = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        connections = self.worker.connections
        connections.add(self)
        self.worker.acceptor.changed()
        super().connection_made(transport)
        if len(connections) > self.worker.cfg.worker_connections:
            self._safe_write(wire(UnavailableError("too many connections are open", "full")))
            super()._close_transport()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.worker.connections.discard(self)
        self.worker.acceptor.changed()
        super().connection_lost(exc)

    async def _handle_websocket(self, request: Any, sockname: Any, peername: Any) -> None:
        """Take over the connection for a WebSocket."""
        self._callback_parser = None
        headers = {name.lower(): value.strip() for name, value in request.headers}
        if headers.get("sec-websocket-version") != "13":
            wanted = (("Sec-WebSocket-Version", "13"),)
            self._send_error_response(426, "WebSocket version 13 is spoken here", wanted)
            return
        if not valid_key(headers.get("sec-websocket-key")):
            self._send_error_response(400, "Sec-WebSocket-Key: expected 16 bytes in base64")
            return
        self._websocket = Frames(
            self.transport,
            self._build_websocket_scope(request, sockname, peername),
            self.app,
            self.log,
            max_message_size=self.cfg.websocket_max_message_size,
            drain=self._flow_control.drain if self._flow_control else None,
        )
        await self._websocket.run()

    @property
    def idle(self) -> bool:
        """Between requests, with nothing of the next one received."""
        return (
            bool(self._awaiting_request)
            and self._current_request is None
            and self.straight is None
            and not (self.partial or self.held)
        )

    @property
    def partial(self) -> bool:
        """The parser holds a part of a head; only the parser in Python can tell."""
        return bool(getattr(self._callback_parser, "_buffer", b""))

    @property
    def answering(self) -> bool:
        """The final answer of the current request has begun to leave."""
        return self._answering and self._current_request is not None

    @property
    def body_is_missing(self) -> bool:
        """A request's body has not come whole."""
        receiver = self._body_receiver
        return receiver is not None and not receiver._complete  # noqa: SLF001 - gunicorn's own state

    @property
    def reading_body(self) -> bool:
        """A request's body has not come whole, and it is the client that we wait for."""
        return self.body_is_missing and not self._reading_paused

    def close_idle(self) -> None:
        """End the connection from this side."""
        self._keepalive_timeout()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.lingering:
            return
        if self.straight is not None:
            self.straight.add(data)
            return
        gate = self.worker.gate
        between = self._current_request is None and self._callback_parser and not self.partial
        if between and gate is not None and not self.worker.leaving:
            if not gate.takes(self, data):
                self.begin(data)
            return
        self.heard += 1
        super().data_received(data)

    def hold(self) -> None:
        """Read nothing more until ``go_on``."""
        self.held = True
        self.transport.pause_reading()

    def go_on(self, data: bytes) -> bool:
        """Begin with what was held back; False when the connection has gone meanwhile."""
        self.held = False
        if self._closed or self.transport.is_closing():
            return False
        self.transport.resume_reading()
        self.begin(data)
        return True

    def answer(self, response: Response) -> None:
        """Answer a request that nobody has parsed; the connection stays."""
        self._safe_write(rendered(response))

    def _feed_callback_parser(self, data: bytes) -> bool:
        try:
            going_on: bool = super()._feed_callback_parser(data)
        except ValueError:
            # A Content-Length of more digits than int() takes.
            self.refuse(protocol_error(400, "a number in the headers is too long"))
            return False
        request = self._current_request
        if going_on and request is not None and request.chunked:
            promised = getattr(self._callback_parser, "_chunk_remaining", 0)
            limit: int = self.worker.app.settings.max_body_bytes
            if promised > limit:
                self.refuse(BodyTooLargeError("longer than the limit in one chunk", limit))
                return False
        return going_on

    def _on_body(self, chunk: bytes) -> None:
        self.body_bytes += len(chunk)
        super()._on_body(chunk)

    def _send_response_start(self, *args: Any, **kwargs: Any) -> None:
        self._answering = True
        super()._send_response_start(*args, **kwargs)

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:  # noqa: FBT001 - gunicorn's signature
        # What is left of a body that nobody reads would be taken for the next request.
        # After the client's last byte, what it has sent ahead is still answered.
        last = self.half_closed and not self._callback_parser.remaining()
        if self.worker.leaving or self.body_is_missing or last:
            return True
        closing: bool = super()._will_close(request, response_requires_close)
        return closing

    def _on_headers_complete(self) -> bool:
        self._answering = False
        skip: bool = super()._on_headers_complete()
        return skip

    def _send_error_response(
        self, status: int, message: str, extra_headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """What gunicorn has to say of a malformed request, in our form."""
        self._say(protocol_error(status, message, tuple(extra_headers)))

    def refuse(self, error: RequestError) -> None:
        """Answer with an error and end the connection."""
        if not self._closed:
            self._say(error)
            self._close_transport()
            self._request_ready.set()

    def _say(self, error: RequestError) -> None:
        """An error that no application sends; nothing after it is read as HTTP."""
        if not self.answering:
            self._safe_write(wire(error))
        self._malformed = True
        if self.body_is_missing:
            # Whoever waits for the rest of the body need not any more.
            self._body_receiver.signal_disconnect()

    def _close_transport(self) -> None:
        """Close; a client that may still be sending must not lose its answer to a reset."""
        if not self._closed and (self._malformed or self.body_is_missing):
            self._linger()
        else:
            super()._close_transport()

    def _linger(self) -> None:
        """Say that nothing more will come, throw away what does, close soon."""
        if self._closed or not self.transport:
            return
        self._closed = self.lingering = True
        self._cancel_keepalive_timer()
        with contextlib.suppress(OSError, RuntimeError):
            if self.transport.can_write_eof() and not self.half_closed:
                self.transport.write_eof()
            self._resume_reading()
        if self.half_closed:
            self.transport.close()
        else:
            self.worker.loop.call_later(LINGER_S, self.transport.close)

    def eof_received(self) -> bool:
        """The client sends nothing more; whether to keep the connection for its answer."""
        if self.straight is not None:
            self.half_closed = True
            return True
        if self.lingering or self._websocket or self.reader or self._current_request is None:
            return False
        if self.answering:
            # A stream without a reader; what is written already still leaves.
            return False
        if self.body_is_missing:
            self.body_is_late()
        self.half_closed = True
        return True

    def body_is_late(self) -> None:
        """The application is told that the rest of the body will not come, and answers."""
        if self.answering:
            self._close_transport()
            return
        receiver = self._body_receiver
        receiver._body_wait_expired = True  # noqa: SLF001 - gunicorn's own state
        receiver._wake_waiter()  # noqa: SLF001 - gunicorn's own state

    def watch(self) -> None:
        """Look whether a client that sends nothing more is still there."""
        request, connected = self._current_request, self.transport.get_extra_info("socket")
        if request is None and self.straight is None:
            # What the client has sent is answered, but for a piece of a request.
            self.close_idle()
            return
        if connected is None:
            return
        self._watched += 1
        if self._watched == 1:
            # Most answers come before anybody needs to ask.
            return
        if self._client is None:
            may_probe = (request is None or request.version >= (1, 1)) and not self.answering
            self._client = Client(connected.fileno(), may_probe=may_probe)
        if self._client.gone():
            self.transport.abort()
