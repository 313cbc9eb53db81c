"""gunicorn's WebSocket protocol with what it lacks.

Refusals with a body, quick unmasking, a bound on what waits in bytes, and a close that the client
gets to see.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import http
from typing import TYPE_CHECKING, Any

from gunicorn.asgi.websocket import WebSocketProtocol

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    Message = MutableMapping[str, Any]

#: Bytes of messages that wait for the application; one message may be longer.
WAITING_BYTES = 1024 * 1024
#: A client that has broken the protocol is listened to so long after it was told.
LINGER_S = 2.0


def valid_key(key: str | None) -> bool:
    """Whether a Sec-WebSocket-Key is 16 bytes in base64 (RFC 6455 section 4.2.1)."""
    try:
        return len(base64.b64decode(key or "", validate=True)) == 16
    except (ValueError, binascii.Error):
        return False


class Frames(WebSocketProtocol):  # type: ignore[misc] # gunicorn is untyped
    """One WebSocket on a connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting_bytes = 0
        self._refusal: Message = {}
        self._over = asyncio.Event()
        self._lingering = False

    def feed_data(self, data: bytes) -> None:
        """Bytes from the client."""
        if not self._lingering:
            super().feed_data(data)

    def feed_eof(self) -> None:
        """The client has closed the connection."""
        self._over.set()
        # A reader that waits for the application must see the end.
        self._queue_space.set()
        super().feed_eof()

    async def run(self) -> None:
        """Run the application, then give the client time to read our close.

        Closing a socket with unread bytes resets the connection, and a reset discards what the
        client has not read yet: the close frame with its code.
        """
        await super().run()
        if self._close_sent and not self._close_received and not self._eof:
            self._lingering = True
            self._buffer.clear()
            self._resume_reading()
            try:
                await asyncio.wait_for(self._over.wait(), LINGER_S)
            except asyncio.TimeoutError:
                return

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.http.response.start":
            self._refusal = message
        elif message["type"] == "websocket.http.response.body":
            self._refuse(self._refusal, message["body"])
        else:
            await super()._send(message)

    def _refuse(self, start: Message, body: bytes) -> None:
        """Answer the handshake with an HTTP response (RFC 6455 section 4.2.2)."""
        self._denied = True
        self.closed = True
        self._close_event.set()
        status = http.HTTPStatus(start["status"])
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
        lines += [name + b": " + value for name, value in start["headers"]]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", b""]) + body)
        self.transport.close()

    async def _put_message(self, message: Message) -> None:
        size = _size(message)
        while (
            self._waiting_bytes
            and self._waiting_bytes + size > WAITING_BYTES
            and not (self._close_sent or self._eof)
        ):
            self._queue_space.clear()
            await self._queue_space.wait()
        self._waiting_bytes += size
        await super()._put_message(message)

    async def _receive(self) -> Message:
        message: Message = await super()._receive()
        self._waiting_bytes -= _size(message)
        self._queue_space.set()
        return message

    def _unmask(self, payload: bytes, masking_key: bytes) -> bytes:
        length = len(payload)
        mask = (masking_key * (length // 4 + 1))[:length]
        plain = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
        return plain.to_bytes(length, "little")


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or b"")
