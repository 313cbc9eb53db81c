"""Who watches a backend's sockets: the front's event loop, or a thread where there is no loop."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Call = Callable[[], None]


class Driver(Protocol):
    """Calls back in one thread, its own; ``soon`` and ``later`` may be used in any."""

    def watch(self, sock: socket.socket, readable: Call, writable: Call | None) -> None:
        """Call when a socket can be read, and when it can be written while that is asked for."""

    def forget(self, sock: socket.socket) -> None:
        """Watch a socket no more; before it is closed."""

    def soon(self, call: Call) -> None:
        """Call once, after what is being done now."""

    def later(self, seconds: float, call: Call) -> None:
        """Call once, after a while."""

    def close(self) -> None:
        """End; nothing is called any more."""


def choose(name: str, loop: asyncio.AbstractEventLoop | None) -> Driver:
    """The loop's driver, or without a loop a thread's.

    Args:
        name: the thread's.
        loop: the running loop.
    """
    return ThreadDriver(name) if loop is None else LoopDriver(loop)


class LoopDriver:
    """In the front's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._writing: set[int] = set()

    def watch(self, sock: socket.socket, readable: Call, writable: Call | None) -> None:
        """See ``Driver``."""
        number = sock.fileno()
        self._loop.add_reader(number, readable)
        if writable is not None:
            self._writing.add(number)
            self._loop.add_writer(number, writable)
        elif number in self._writing:
            self._writing.discard(number)
            self._loop.remove_writer(number)

    def forget(self, sock: socket.socket) -> None:
        """See ``Driver``."""
        number = sock.fileno()
        self._loop.remove_reader(number)
        if number in self._writing:
            self._writing.discard(number)
            self._loop.remove_writer(number)

    def soon(self, call: Call) -> None:
        """See ``Driver``."""
        if threading.get_ident() == self._thread:
            self._loop.call_soon(call)
            return
        # A closed loop means that the front is gone, and so are its requests.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def later(self, seconds: float, call: Call) -> None:
        """See ``Driver``."""
        self.soon(lambda: _ignore(self._loop.call_later(seconds, call)))

    def close(self) -> None:
        """See ``Driver``."""


def _ignore(handle: object) -> None:
    _ = handle


class ThreadDriver:
    """In a thread of its own.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._order = itertools.count()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ, (self._drained, None))
        self._open = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def watch(self, sock: socket.socket, readable: Call, writable: Call | None) -> None:
        """See ``Driver``."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable else 0)
        if sock.fileno() in self._selector.get_map():
            self._selector.modify(sock, events, (readable, writable))
        else:
            self._selector.register(sock, events, (readable, writable))

    def forget(self, sock: socket.socket) -> None:
        """See ``Driver``."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)

    def soon(self, call: Call) -> None:
        """See ``Driver``."""
        self._calls.append(call)
        # A full pipe wakes the thread as well.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def later(self, seconds: float, call: Call) -> None:
        """See ``Driver``."""
        due = time.monotonic() + seconds
        self.soon(lambda: heapq.heappush(self._timers, (due, next(self._order), call)))

    def close(self) -> None:
        """See ``Driver``."""
        self._open = False
        self.soon(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _drained(self) -> None:
        with contextlib.suppress(OSError):
            self._woken.recv(4096)

    def _run(self) -> None:
        while self._open:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self._selector.select(0 if self._calls else wait):
                readable, writable = key.data
                if events & selectors.EVENT_WRITE and writable is not None:
                    writable()
                if events & selectors.EVENT_READ:
                    readable()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        self._selector.close()
        self._wake.close()
        self._woken.close()
