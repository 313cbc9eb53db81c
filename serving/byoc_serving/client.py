"""Whether the client of a request that still waits is there to read the answer.

A client that closes its socket and one that only has nothing more to send look the same here: a
FIN arrives. What tells them apart is what comes back for a byte sent to them: a closed socket
answers with a reset. An interim response (RFC 9110 section 15.2) may be sent at any time before
the final one and means nothing to those who read it, so it is the probe.
"""

from __future__ import annotations

import os
import socket

PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: States of TCP (include/net/tcp_states.h): everything is over; the client has sent its FIN.
_CLOSED = 7
_CLOSE_WAIT = 8


def tcp_state(descriptor: int) -> int:
    """The state of a connection as Linux numbers it; closed when there is no telling."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            return copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return _CLOSED


class Client:
    """Watches one connection while its request waits; ask it about once a second.

    Args:
        descriptor: the connection's file descriptor; it stays the caller's.
        may_probe: the client knows interim responses, as HTTP/1.1 has them.
    """

    def __init__(self, descriptor: int, *, may_probe: bool = True) -> None:
        self._descriptor = descriptor
        self._probed = not may_probe

    def gone(self) -> bool:
        """Whether nobody is left to read an answer."""
        state = tcp_state(self._descriptor)
        if state == _CLOSE_WAIT and not self._probed:
            self._probed = True
            try:
                # MSG_DONTWAIT: a client that reads nothing must not hold us up.
                with socket.socket(fileno=os.dup(self._descriptor)) as copy:
                    copy.send(PROBE, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                return tcp_state(self._descriptor) == _CLOSED
        return state == _CLOSED
