"""A stream as the iterable of a WSGI response, in the thread that holds the connection."""

from __future__ import annotations

import dataclasses
import errno
import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from byoc_serving.exchange import Response
    from byoc_serving.streaming import Stream

#: How soon a client that leaves between two chunks is noticed.
LOOK_S = 0.25


class Chunks:
    """The body of a streaming response.

    Args:
        stream: made in another thread, or process.
        connection: the client's socket, where the server tells of it.
    """

    def __init__(self, stream: Stream[Response], connection: socket.socket | None) -> None:
        self._stream = stream
        self._connection = connection

    def head(self) -> Response:
        """Wait for the head: a complete response, or one with this stream as its body.

        Raises:
            BrokenPipeError: the client has left.
        """
        while self._stream.head is None:
            self._wait()
        head = self._stream.head
        return head if self._stream.whole else dataclasses.replace(head, stream=self._stream)

    def __iter__(self) -> Iterator[bytes]:
        """The chunks as they come.

        Raises:
            BrokenPipeError: the response breaks off; the server then closes the connection
                without the chunk that would make the body complete, and without a traceback.
        """
        while not self._stream.ended:
            self._wait()
            yield from self._stream.take()
        if self._stream.broken:
            raise BrokenPipeError(errno.EPIPE, "the response broke off")

    def _wait(self) -> None:
        stream = self._stream
        while not stream.wait(LOOK_S):
            if self._left() or stream.left_s() == 0:
                stream.cancel()
                raise BrokenPipeError(errno.EPIPE, "the client has left, or the time is over")

    def _left(self) -> bool:
        """Whether the client has closed the connection."""
        if self._connection is None:
            return False
        try:
            if not select.select([self._connection], [], [], 0)[0]:
                return False
            return not self._connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """The server is done with the response, whatever way."""
        self._stream.cancel()
