"""One end of a connection between a front and a model process: messages, never blocking."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from byoc_serving import wire

if TYPE_CHECKING:
    import socket

_RECEIVE_BYTES = 256 * 1024


class Link:
    """A connected stream socket with buffers on both sides; used by one thread at a time.

    Args:
        sock: connected, non-blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._reader = wire.Reader()
        self._messages: deque[wire.Message] = deque()
        self._frames: deque[memoryview] = deque()
        #: Whether somebody waits for the socket to take more.
        self.blocked = False

    def queue(self, message: wire.Message) -> None:
        """Send a message with the next ``flush``; safe in any thread."""
        self._messages.append(message)

    def flush(self) -> bool:
        """Send what waits, as one frame; True when the socket has taken everything.

        A connection that is gone takes everything too: reading tells of its end.
        """
        if self._messages:
            messages: list[wire.Message] = []
            while self._messages:
                messages.append(self._messages.popleft())
            self._frames.append(memoryview(wire.frame(messages)))
        frames = self._frames
        while frames:
            try:
                sent = self.socket.send(frames[0])
            except BlockingIOError:
                return False
            except OSError:
                frames.clear()
                return True
            if sent == len(frames[0]):
                frames.popleft()
            else:
                frames[0] = frames[0][sent:]
        return True

    def receive(self) -> tuple[list[wire.Message], bool]:
        """The messages that have arrived, and whether the connection is still there."""
        messages: list[wire.Message] = []
        while True:
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return messages, True
            except OSError:
                return messages, False
            if not data:
                return messages, False
            messages += self._reader.feed(data)
            if len(data) < _RECEIVE_BYTES // 2:
                # Most likely everything; the selector tells if not.
                return messages, True

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self.socket.close()
