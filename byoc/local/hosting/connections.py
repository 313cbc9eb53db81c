"""HTTP/1.1 to one container, over connections that are kept.

Written for what stands between a caller and a model: one write for a request, one read for most
answers, a deadline for the whole exchange, and chunks handed on as they arrive.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc.local.hosting.wire import Connection, ExchangeError, LateError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


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
        self._idle: deque[Connection] = deque()
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

    def give(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def _take(self, deadline: float) -> Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.quiet():
                return connection
            connection.close()
        # With many requests at once a container's queue is full for a while: that is no refusal.
        seconds = max(0.01, deadline - time.monotonic())
        try:
            return Connection(socket.create_connection(self._address, seconds))
        except TimeoutError:
            raise LateError("it did not take a connection in time") from None
        except OSError as error:
            raise UnreachableError(f"it takes no connection: {error}") from error


class Answer:
    """The beginning of an answer, and its body as it comes."""

    def __init__(
        self,
        connections: Connections,
        connection: Connection,
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
