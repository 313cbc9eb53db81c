"""Shared memory for bodies and arrays between the fronts and the model processes.

One anonymous shared mapping, made by the master before it forks: no file, no /dev/shm, no name
that could be left behind. Each front has a region for what it sends, each pair of front and model
process one for what comes back; a region has one allocator, in the process that writes there, so
no lock is shared between processes and a killed one leaves nothing locked.

Pages exist once they are written; those of large blocks are given back when the block is freed.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import threading

_LINE = 64
#: MAP_NORESERVE of Linux: the mapping is as large as the queue may become, not as it is.
_NORESERVE = 0x4000
#: Freed blocks of this size give their pages back to the system.
_PUNCH_BYTES = 8 * 1024 * 1024


class Arena:
    """The mapping.

    Args:
        seats: fronts.
        peers: model processes.
        request_bytes: a front's region for requests.
        answer_bytes: a region for answers, one a front and model process.
    """

    def __init__(self, seats: int, peers: int, request_bytes: int, answer_bytes: int) -> None:
        self.seats = seats
        self._request_bytes = _pages(request_bytes)
        self._answer_bytes = _pages(answer_bytes)
        total = seats * (self._request_bytes + peers * self._answer_bytes)
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NORESERVE
        self.memory = mmap.mmap(-1, total, flags=flags)
        self.view = memoryview(self.memory)

    def requests(self, seat: int) -> Region:
        """An allocator for a front's requests; only that front may make one."""
        return Region(self.memory, seat * self._request_bytes, self._request_bytes)

    def answers(self, seat: int, peer: int) -> Region:
        """An allocator for a model process's answers to a front; one a connection."""
        start = self.seats * self._request_bytes
        start += (peer * self.seats + seat) * self._answer_bytes
        return Region(self.memory, start, self._answer_bytes)


class Region:
    """A part of the mapping with its allocator: first fit, neighbours joined; thread-safe.

    Args:
        memory: the mapping.
        start: the region's offset, a multiple of the page size.
        size: its bytes.
    """

    def __init__(self, memory: mmap.mmap, start: int, size: int) -> None:
        self._memory = memory
        self.size = size
        self.used = 0
        self._starts = [start]
        self._sizes = [size]
        self._lock = threading.Lock()

    def take(self, size: int) -> int | None:
        """The offset in the mapping of a block of at least ``size`` bytes; None: no room."""
        size = _lines(size)
        with self._lock:
            for position, free in enumerate(self._sizes):
                if free >= size:
                    offset = self._starts[position]
                    if free == size:
                        del self._starts[position], self._sizes[position]
                    else:
                        self._starts[position] = offset + size
                        self._sizes[position] = free - size
                    self.used += size
                    return offset
        return None

    def give(self, offset: int, size: int) -> None:
        """Free a block that ``take`` gave for ``size`` bytes."""
        size = _lines(size)
        if size >= _PUNCH_BYTES:
            self._punch(offset, size)
        with self._lock:
            self.used -= size
            position = bisect.bisect_left(self._starts, offset)
            starts, sizes = self._starts, self._sizes
            if position < len(starts) and offset + size == starts[position]:
                size += sizes[position]
                del starts[position], sizes[position]
            if position and starts[position - 1] + sizes[position - 1] == offset:
                sizes[position - 1] += size
            else:
                starts.insert(position, offset)
                sizes.insert(position, size)

    def _punch(self, offset: int, size: int) -> None:
        """Give whole pages back; the range reads as zeros afterwards."""
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
        # A kernel that cannot only keeps the pages for the next block.
        with contextlib.suppress(OSError, AttributeError):
            self._memory.madvise(mmap.MADV_REMOVE, first, length)


def _lines(size: int) -> int:
    return max(_LINE, -(-size // _LINE) * _LINE)


def _pages(size: int) -> int:
    return max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE
