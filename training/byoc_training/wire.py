"""One TCP connection between two hosts of a job: a JSON object a line, never blocking."""

from __future__ import annotations

import json
import socket
from typing import Any

#: Longer lines are no message of ours.
LONGEST_LINE_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024


class Link:
    """A connection that is made already.

    Args:
        connection: The socket; it is this object's from now on.
        now: Seconds of a monotonic clock.

    Attributes:
        host: The host at the other end, once it has said so.
        closed: Why nothing more comes from it; empty while it is open.
        heard: When it was last heard of, in seconds of the same clock.
    """

    def __init__(self, connection: socket.socket, now: float) -> None:
        connection.settimeout(0.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.host = ""
        self.closed = ""
        self.heard = now

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._socket.fileno()

    @property
    def has_more_to_send(self) -> bool:
        """Whether it is worth waiting until it can be written to."""
        return bool(self._outgoing) and not self.closed

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message and send what can be sent at once."""
        self._outgoing += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what can be sent at once."""
        while self.has_more_to_send:
            try:
                del self._outgoing[: self._socket.send(self._outgoing)]
            except BlockingIOError:  # noqa: PERF203 - the loop is about these errors
                return
            except OSError as error:
                self.closed = error.strerror or "the connection broke"

    def receive(self, now: float) -> list[dict[str, Any]]:
        """The messages that have come; `closed` says when there will be no more."""
        while not self.closed:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self.closed = error.strerror or "the connection broke"
                break
            if not data:
                self.closed = "the connection was closed"
                break
            self.heard = now
            self._incoming += data
            if len(self._incoming) > LONGEST_LINE_BYTES and b"\n" not in self._incoming:
                self.closed = "what it sends is no message of a host"
        *lines, rest = self._incoming.split(b"\n")
        self._incoming = bytearray(rest)
        messages = []
        for line in lines:
            message = _parsed(line)
            if message is None:
                self.closed = "what it sends is no message of a host"
                break
            messages.append(message)
        return messages

    def finish(self) -> None:
        """Say that nothing more comes from here."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.closed = self.closed or error.strerror or "the connection broke"

    def close(self) -> None:
        """End the connection. Unread bytes take with them what was sent last: see `finish`."""
        self.closed = self.closed or "closed here"
        self._socket.close()


def _parsed(line: bytearray) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
