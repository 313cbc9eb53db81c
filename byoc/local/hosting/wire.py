"""One connection to a container: HTTP/1.1, written and read with a deadline."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_READ_BYTES = 256 * 1024
_MOST_HEAD_BYTES = 256 * 1024
#: A body up to this size goes out with its head.
_TOGETHER_BYTES = 64 * 1024


class ExchangeError(Exception):
    """The container gave no complete answer."""


class UnreachableError(ExchangeError):
    """It takes no connection; nothing of the request was sent."""


class LateError(ExchangeError):
    """The answer was not complete in time."""


class EndError(ExchangeError):
    """The container has closed the connection."""


class Connection:
    """A connection; one request at a time.

    Args:
        channel: Connected.
    """

    def __init__(self, channel: socket.socket) -> None:
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = channel
        self._buffer = b""
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self.keeps = True

    def quiet(self) -> bool:
        """Whether nothing has come since the last answer: neither bytes nor the end."""
        return not self._buffer and not self._poll.poll(0)

    def close(self) -> None:
        """Close it."""
        self.keeps = False
        self._socket.close()

    def send(self, head: bytes, body: bytes | Iterable[bytes], deadline: float) -> None:
        """Send a request; a body that is no bytes goes in chunks.

        Raises:
            LateError: It was not taken in time.
            OSError: The connection broke.
        """
        try:
            if not isinstance(body, bytes):
                self._send(head, deadline)
                for chunk in body:
                    if chunk:
                        self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk), deadline)
                self._send(b"0\r\n\r\n", deadline)
            elif len(body) <= _TOGETHER_BYTES:
                self._send(head + body, deadline)
            else:
                self._send(head, deadline)
                self._send(body, deadline)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered without reading all, as with a body that is too long.
            if not self._poll.poll(0):
                raise

    def read_head(self, deadline: float) -> tuple[int, dict[str, str]]:
        """Status and headers, names in small letters.

        Raises:
            ExchangeError: There is no answer, or none of HTTP.
            OSError: The connection broke.
        """
        while True:
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                if len(self._buffer) > _MOST_HEAD_BYTES:
                    raise ExchangeError("the head of its answer has no end")
                self._buffer += self._receive(deadline)
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            self._buffer = self._buffer[end + 4 :]
            words = first.split(" ", 2)
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
                raise ExchangeError(f"its answer is no HTTP: {first[:80]!r}")
            if words[1][0] != "1":
                break
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.keeps = headers.get("connection", "").lower() != "close" and words[0] != "HTTP/1.0"
        return int(words[1]), headers

    def read_body(
        self, status: int, headers: Mapping[str, str], deadline: float
    ) -> Iterator[bytes]:
        """The body's parts as they arrive; errors as of `read_head`."""
        if status in (204, 304):
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked(deadline)
            return
        length = headers.get("content-length")
        if length is None:
            self.keeps = False
            with contextlib.suppress(EndError):
                while True:
                    yield self._some(deadline, _READ_BYTES)
            return
        if not length.isdigit():
            raise ExchangeError(f"its Content-Length is {length!r}")
        rest = int(length)
        while rest:
            chunk = self._some(deadline, rest)
            rest -= len(chunk)
            yield chunk

    def _chunked(self, deadline: float) -> Iterator[bytes]:
        while True:
            try:
                size = int(self._line(deadline).split(b";")[0], 16)
            except ValueError:
                raise ExchangeError("a chunk of its answer has no size") from None
            if size == 0:
                while self._line(deadline):  # trailers
                    pass
                return
            while size:
                chunk = self._some(deadline, size)
                size -= len(chunk)
                yield chunk
            self._line(deadline)

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _MOST_HEAD_BYTES:
                raise ExchangeError("a line of its answer has no end")
            self._buffer += self._receive(deadline)
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _some(self, deadline: float, most: int) -> bytes:
        """Between 1 and ``most`` bytes of the body."""
        if self._buffer:
            chunk, self._buffer = self._buffer[:most], self._buffer[most:]
            return chunk
        chunk = self._receive(deadline)
        if len(chunk) > most:
            chunk, self._buffer = chunk[:most], chunk[most:]
        return chunk

    def _receive(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LateError("it did not answer in time")
        self._socket.settimeout(left)
        try:
            chunk = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            raise LateError("it did not answer in time") from None
        if not chunk:
            raise EndError("it closed the connection before its answer was complete")
        return chunk

    def _send(self, content: bytes, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise LateError("it did not take the request in time")
        self._socket.settimeout(left)
        try:
            self._socket.sendall(content)
        except TimeoutError:
            raise LateError("it did not take the request in time") from None
