"""Keeps thousands of clients that mean no good connected to a server; a process of its own.

Of every five one says nothing, one has had an answer and stays, one sends its head a byte a second,
one its body, one asks and never reads its answer. Whoever is cut off comes back, a quarter as many
a second as came at first. Beside them, a twentieth as many a second send half a request and close
their sending side. One line on stdout says
that everybody has come, a second one, when stdin ends, how many are there and what became of the
others, as JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import sys
import time
from collections import Counter, deque

from benchmarks.load import allow_many_connections

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-npy\r\n"
BODY = b"Content-Length: 100000\r\n\r\n"
#: Cut off at once, and not replaced.
PASSING = "half-closed"
#: What each kind sends at once, and what it then sends a byte a second of.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "idle": (PING, b""),
    "slow head": (b"", HEAD + b"X-Slow: " + b"a" * 100_000),
    "slow body": (HEAD + BODY, b"\x93NUMPY" + b"a" * 100_000),
    PASSING: (HEAD + BODY + b"\x93NUMPY", b""),
    "deaf": (PING * 50, b""),
}
#: A new connection waits for nobody.
CONNECTING = {errno.EINPROGRESS, 0}


class Member:
    """One connection.

    Args:
        port: of the server on this machine.
        kind: what it does.
    """

    def __init__(self, port: int, kind: str) -> None:
        self.kind = kind
        self.sent = 0
        self.begun = False
        self.socket = socket.socket()
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        if kind == "deaf":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        self.gone = self.socket.connect_ex(("127.0.0.1", port)) not in CONNECTING

    def act(self) -> None:
        """A second has passed."""
        first, rest = KINDS[self.kind]
        try:
            if not self.begun:
                self.begun = True
                self.socket.send(first or rest[:1])
                if self.kind == PASSING:
                    self.socket.shutdown(socket.SHUT_WR)
            elif self.sent < len(rest):
                self.socket.send(rest[self.sent : self.sent + 1])
                self.sent += 1
        except BlockingIOError:
            self.begun = self.sent > 0
        except OSError:
            self.gone = True

    def look(self) -> None:
        """Bytes have come, or the end."""
        if self.kind == "deaf":
            return
        with contextlib.suppress(BlockingIOError):
            try:
                self.gone = not self.socket.recv(65536)
            except OSError:
                self.gone = True


class Crowd:
    """All of them.

    Args:
        port: of the server.
        size: how many.
    """

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._poll = select.epoll()
        self._members: dict[int, Member] = {}
        self.cut_off: Counter[str] = Counter()
        kinds = list(KINDS)
        kinds.remove(PASSING)
        self._missing = deque(kinds[number % len(kinds)] for number in range(size))

    def __len__(self) -> int:
        return len(self._members)

    def second(self, most: int) -> None:
        """What happens in a second; at most so many connect."""
        ends = time.monotonic() + 1
        coming = [self._missing.popleft() for _ in range(min(most, len(self._missing)))]
        for kind in [*coming, *[PASSING] * (most // 20)]:
            member = Member(self._port, kind)
            self._members[member.socket.fileno()] = member
            self._poll.register(member.socket, select.EPOLLIN | select.EPOLLET)
        for descriptor, member in list(self._members.items()):
            member.act()
            self._bury(descriptor, member)
        while (left := ends - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left):
                if descriptor in self._members:
                    self._members[descriptor].look()
                    self._bury(descriptor, self._members[descriptor])

    def _bury(self, descriptor: int, member: Member) -> None:
        if member.gone:
            del self._members[descriptor]
            member.socket.close()
            self.cut_off[member.kind] += 1
            if member.kind != PASSING:
                self._missing.append(member.kind)


def main() -> None:
    """Arguments: port, connections, new ones a second."""
    port, size, most = map(int, sys.argv[1:4])
    allow_many_connections()
    crowd = Crowd(port, size)
    for left in range(size, 0, -most):
        crowd.second(min(most, left))
    print("complete", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        crowd.second(most // 4)
    print(json.dumps({"there": len(crowd), "cut_off": crowd.cut_off}))


if __name__ == "__main__":
    main()
