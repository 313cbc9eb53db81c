"""What each model process is running, in shared memory: who outlives a crash knows whose it was.

A model process writes the ids of a batch before it runs it and clears them afterwards. Two pages
take turns from one incarnation to the next, so that a front can still read what a dead process
left while its replacement works. The master reads how long a batch has been running.
"""

from __future__ import annotations

import enum
import mmap
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = struct.Struct("<QdII")  # incarnation, since, ended by, ids
_PAGE_BYTES = 64 * 1024
#: Ids that a page holds; no batch is larger.
LIMIT = (_PAGE_BYTES - _HEAD.size) // 8
_SEAT_SHIFT = 48


class End(enum.IntEnum):
    """Why a process has ended."""

    CRASHED = 0
    HUNG = 1


@dataclass(frozen=True)
class Left:
    """What a process left behind.

    Attributes:
        end: why it ended.
        ids: a front's requests that it was running.
        count: all requests that it was running.
    """

    end: End = End.CRASHED
    ids: frozenset[int] = frozenset()
    count: int = 0


def running_bytes(peers: int) -> int:
    """Memory that a table needs; pages that nobody writes to take none."""
    return peers * 2 * _PAGE_BYTES


class Running:
    """The table of what runs.

    Args:
        peers: model processes.
        descriptor: memory of ``running_bytes`` to share by passing it on; -1: forks share it.
    """

    def __init__(self, peers: int, descriptor: int = -1) -> None:
        self._memory = mmap.mmap(descriptor, running_bytes(peers))

    def _offset(self, peer: int, incarnation: int) -> int:
        return (peer * 2 + incarnation % 2) * _PAGE_BYTES

    def begin(self, peer: int, incarnation: int, items: Sequence[tuple[int, int]]) -> None:
        """A batch starts: (seat, id) of each request, at most ``LIMIT``."""
        offset = self._offset(peer, incarnation)
        keys = [seat << _SEAT_SHIFT | identifier for seat, identifier in items]
        struct.pack_into(f"<{len(keys)}Q", self._memory, offset + _HEAD.size, *keys)
        _HEAD.pack_into(self._memory, offset, incarnation, time.monotonic(), End.CRASHED, len(keys))

    def done(self, peer: int, incarnation: int) -> None:
        """Nothing runs."""
        offset = self._offset(peer, incarnation)
        _HEAD.pack_into(self._memory, offset, incarnation, 0.0, End.CRASHED, 0)

    def condemn(self, peer: int, incarnation: int) -> None:
        """Note that the process ends because it hung; what it runs is not to be tried again."""
        struct.pack_into("<I", self._memory, self._offset(peer, incarnation) + 16, End.HUNG)

    def busy_s(self, peer: int, incarnation: int) -> float:
        """Seconds that the batch of now has been running; 0: none runs."""
        seen, since, _, count = _HEAD.unpack_from(self._memory, self._offset(peer, incarnation))
        return time.monotonic() - since if seen == incarnation and count else 0.0

    def left(self, peer: int, incarnation: int, seat: int) -> Left:
        """What an ended process was running, as a front needs to know it."""
        offset = self._offset(peer, incarnation)
        seen, _, end, count = _HEAD.unpack_from(self._memory, offset)
        if seen != incarnation or not count:
            return Left()
        keys = struct.unpack_from(f"<{count}Q", self._memory, offset + _HEAD.size)
        mask = (1 << _SEAT_SHIFT) - 1
        mine = frozenset(key & mask for key in keys if key >> _SEAT_SHIFT == seat)
        return Left(End(end), mine, count)
