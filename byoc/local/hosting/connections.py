"""HTTP/1.1 to one container, over connections that are kept.

Written for what stands between a caller and a model: one write for a request, one read for most
answers, a deadline for the whole exchange, and chunks handed on as they arrive.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_READ_BYTES = 256 * 1024
_MOST_HEAD_BYTES = 256 * 1024
#: A body up to this size goes out with its head.
_TOGETHER_BYTES = 64 * 1024
CONNECT_SECONDS = 2.0


class ExchangeError(Exception):
    """The container gave no complete answer."""


class UnreachableError(ExchangeError):
    """It takes no connection; nothing of the request was sent."""


class LateError(ExchangeError):
    """The answer was not complete in time."""


@dataclass(frozen=True)
class Reply:
    """A whole answer; header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """The connections to one container."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._idle: deque[_Connection] = deque()
        self._closed = False
        self._lock = threading.Lock()
        #: Requests whose answers are not complete.
        self.in_flight = 0

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes],
        seconds: float,
    ) -> Reply:
        """One request and its whole answer.

        Args:
            method: Such as ``POST``.
            path: The target, with its query.
            headers: Those of the content; length and host are added.
            body: Bytes, or chunks to be sent without a length.
            seconds: For all of it.

        Raises:
            ExchangeError: There was none, see its kinds.
        """
        answer = self.open(method, path, headers, body, seconds)
        try:
            content = b"".join(answer.chunks())
        finally:
            answer.close()
        return Reply(answer.status, answer.headers, content)

    def open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes],
        seconds: float,
    ) -> Answer:
        """One request and the beginning of its answer; see `ask`. Close what it returns."""
        self.count(1)
        try:
            return self._open(_head(method, path, headers, body), body, time.monotonic() + seconds)
        except BaseException:
            self.count(-1)
            raise

    def _open(self, head: bytes, body: bytes | Iterable[bytes], deadline: float) -> Answer:
        connection = self._take(deadline)
        # Never sent again: a request that has ended its container would end the next one too.
        try:
            connection.send(head, body, deadline)
            status, found = connection.read_head(deadline)
        except OSError as error:
            connection.close()
            raise ExchangeError(f"the connection broke: {error}") from error
        except BaseException:
            connection.close()
            raise
        return Answer(self, connection, status, found, deadline)

    def close(self) -> None:
        """Close those that nobody uses, and the others when they come back."""
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread has taken it
                self._idle.pop().close()

    def count(self, number: int) -> None:
        """More or fewer requests are in flight."""
        with self._lock:
            self.in_flight += number

    def give(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def _take(self, deadline: float) -> _Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.quiet():
                return connection
            connection.close()
        seconds = min(CONNECT_SECONDS, max(0.01, deadline - time.monotonic()))
        try:
            return _Connection(socket.create_connection(self._address, seconds))
        except OSError as error:
            raise UnreachableError(f"it takes no connection: {error}") from error


class Answer:
    """The beginning of an answer, and its body as it comes."""

    def __init__(
        self,
        connections: Connections,
        connection: _Connection,
        status: int,
        headers: Mapping[str, str],
        deadline: float,
    ) -> None:
        self.status, self.headers = status, headers
        self._connections, self._connection, self._deadline = connections, connection, deadline
        self._done = self._closed = False

    def chunks(self) -> Iterator[bytes]:
        """The body's parts as they arrive.

        Raises:
            ExchangeError: It broke off, or was late.
        """
        try:
            yield from self._connection.read_body(self.status, self.headers, self._deadline)
        except OSError as error:
            raise ExchangeError(f"the connection broke: {error}") from error
        self._done = True

    def close(self) -> None:
        """Keep the connection if the answer was read to its end, else close it."""
        connection = self._connection
        if self._closed:
            return
        self._closed = True
        self._connections.count(-1)
        if self._done and connection.keeps:
            self._connections.give(connection)
        else:
            connection.close()


class _Connection:
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
        self.keeps = False
        self._socket.close()

    def send(self, head: bytes, body: bytes | Iterable[bytes], deadline: float) -> None:
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


class EndError(ExchangeError):
    """The container has closed the connection."""


def _head(
    method: str, path: str, headers: Mapping[str, str], body: bytes | Iterable[bytes]
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1\r\nHost: localhost:8080\r\n"]
    for name, value in headers.items():
        # What a client has put into a header cannot end it.
        lines.append(f"{name}: {value}\r\n".replace("\r\n", "").replace("\n", "") + "\r\n")
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    else:
        lines.append("Transfer-Encoding: chunked\r\n\r\n")
    return "".join(lines).encode("latin-1", "replace")
