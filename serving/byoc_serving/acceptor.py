"""Accepting connections in turn with the other workers.

Workers share one listening socket, and whoever is quick would take every connection of a client
that opens its pool at once; the other cores would then idle for as long as that pool lives. So a
worker that has more open connections than another live one leaves a new connection to that one
for a moment, and takes it only when nobody else has.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import mmap
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: How long the others have for a connection; the platform wants it accepted within 250 ms.
COURTESY_S = 0.002
#: Accepted in one go, so that a flood does not keep the loop from its requests.
_AT_ONCE = 64
#: Wait after the descriptors ran out: each attempt would fail at once.
_EXHAUSTED_S = 0.1
_ROW = struct.Struct("<II")
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Doors:
    """How many connections each worker has open, in memory that all of them share.

    Args:
        workers: processes that accept.
    """

    def __init__(self, workers: int) -> None:
        #: More rows than workers, because a new worker's row may still be its predecessor's.
        self._rows = 4 * workers + 4
        self._memory = mmap.mmap(-1, self._rows * _ROW.size)

    def put(self, number: int, pid: int, connections: int) -> None:
        """Worker ``number``, counted from the server's start, has this many connections."""
        _ROW.pack_into(self._memory, number % self._rows * _ROW.size, pid, connections)

    def least(self, pid: int) -> int | None:
        """The fewest connections that another live worker has; None when there is no other."""
        counts = [
            connections
            for other, connections in _ROW.iter_unpack(self._memory[:])
            if other not in {0, pid} and _alive(other)
        ]
        return min(counts, default=None)


class Acceptor:
    """Accepts on listening sockets for one worker, on its loop.

    Args:
        loop: the worker's loop.
        listeners: listening sockets, shared with the other workers.
        connect: makes the protocol of a new connection.
        doors: what the workers know of each other.
        number: this worker's number.
        count: the connections that are open now.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: list[socket.socket],
        connect: Callable[[], Any],
        doors: Doors,
        number: int,
        count: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._connect = connect
        self._doors = doors
        self._number = number
        self._count = count
        self._connecting: set[asyncio.Task[Any]] = set()
        self.listening = False

    def start(self) -> None:
        """Accept from now on."""
        self.listening = True
        self.changed()
        for listener in self._listeners:
            listener.settimeout(0)
            self._watch(listener)

    def stop(self) -> None:
        """Accept no more; connections that are open stay."""
        if not self.listening:
            return
        self.listening = False
        self._doors.put(self._number, 0, 0)
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    async def finish(self, for_all: bool) -> None:  # noqa: FBT001 - one flag, one caller
        """Take the connections that the kernel has made and nobody has accepted yet.

        Closing the listening socket would reset them, with a request inside perhaps.

        Args:
            for_all: the whole server stops: nobody listens any more, in this moment. Otherwise a
                socket that another process has still open would go on making connections.
        """
        for listener in self._listeners:
            while self._accept(listener):
                pass
            if for_all:
                hang_up(listener)
        if self._connecting:
            await asyncio.wait(self._connecting)

    def changed(self) -> None:
        """The number of connections is another one."""
        if self.listening:
            self._doors.put(self._number, os.getpid(), self._held())

    def _held(self) -> int:
        return self._count() + len(self._connecting)

    def _watch(self, listener: socket.socket) -> None:
        if self.listening:
            self._loop.add_reader(listener.fileno(), self._ready, listener)

    def _ready(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            least = self._doors.least(os.getpid())
            if least is not None and self._held() > least:
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(COURTESY_S, self._anyway, listener)
                return
            if not self._accept(listener):
                return

    def _anyway(self, listener: socket.socket) -> None:
        """The others have had their moment."""
        if self.listening:
            self._accept(listener)
            self._watch(listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection; False when none waits."""
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED and self.listening:
                log.warning("no more connections for a moment: %s", error.strerror)
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(_EXHAUSTED_S, self._watch, listener)
            # Otherwise nothing waits, or the client has left again.
            return False
        connection.settimeout(0)
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            # An answer goes out in one piece; waiting for more would only delay it.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._open(connection))
        self._connecting.add(task)
        task.add_done_callback(self._opened)
        self.changed()
        return True

    def _opened(self, task: asyncio.Task[Any]) -> None:
        """From here on it is counted with the open ones, not as well with those being opened."""
        self._connecting.discard(task)
        self.changed()

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connect, connection)
        except OSError as error:
            log.debug("a connection broke while it was opened: %s", error)
            connection.close()


def hang_up(listener: socket.socket) -> None:
    """End listening for every process that shares the socket."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
