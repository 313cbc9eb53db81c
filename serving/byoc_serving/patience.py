"""How long a client may take to say what it wants, and where its connection is by then."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

#: A body slower than this for longer than a pause may last holds a place for nothing.
MIN_BODY_BYTES_PER_S = 1000
#: Sent bytes that nobody acknowledges, or that find no room at the client, for this long.
STALLED_WRITE_MS = 60_000
#: A connection that says nothing is asked by the kernel whether it is alive.
_KEEPALIVE_IDLE_S = 120
#: After a refusal the client gets this long to stop sending and to read the answer.
LINGER_S = 2.0
#: A request's head may be as long as this in all.
MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Patience:
    """Limits on a client's time.

    Attributes:
        head_s: from a request's first byte to the end of its headers.
        body_s: without a byte of the body; beyond it the average must be
            ``MIN_BODY_BYTES_PER_S`` as well.
        idle_s: between requests, and before the first.
    """

    head_s: float
    body_s: float
    idle_s: float

    @classmethod
    def of(cls, settings: Settings, idle_s: float) -> Patience:
        """The settings' limits."""
        return cls(settings.header_timeout_s, settings.body_timeout_s, idle_s)

    def body_until(self, began: float, last: float, received_bytes: int) -> float:
        """The moment from which a body is too slow.

        Args:
            began: when it began, in seconds of a monotonic clock.
            last: when its last byte came.
            received_bytes: what has come by then.
        """
        by_rate = began + self.body_s + received_bytes / MIN_BODY_BYTES_PER_S
        return min(last + self.body_s, by_rate)


def harden(listener: socket.socket) -> None:
    """Options that every connection accepted from a listening socket inherits.

    A client that never reads its answer, or whose machine is gone, ends by the kernel's clock.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_WRITE_MS)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
