"""What every process of the server knows of the others: a small table in shared memory.

Made by the master before it forks, so that the workers, the porter and the master see the same
anonymous pages: no file, no /dev/shm, no semaphore. Each field has one writer at a time.
"""

from __future__ import annotations

import enum
import mmap
import struct
import time
from dataclasses import dataclass

_HEAD = struct.Struct("<BBBxId")  # latched, stopping, porter listens, required, started
_TEXT = struct.Struct("<I")
_TEXT_OFFSET = 64
_TEXT_BYTES = 3968
_SLOTS_OFFSET = 4096
_SLOT = struct.Struct("<BxxxIdd")  # state, pid, since, heartbeat
_PHASE_OFFSET = 32
_PHASE_BYTES = 220
_SLOT_BYTES = 256


class State(enum.IntEnum):
    """What a worker is doing."""

    EMPTY = 0
    LOADING = 1
    READY = 2
    DRAINING = 3


@dataclass(frozen=True)
class Slot:
    """One worker: ``since`` and ``heartbeat`` are seconds of the monotonic clock."""

    state: State
    pid: int
    since: float
    heartbeat: float
    phase: str


class Table:
    """The shared table.

    Args:
        required: workers that must be ready before the first good ``/ping``.
    """

    def __init__(self, required: int) -> None:
        self.required = required
        #: Set before the fork: requests outlive the processes in the rows, so ``/ping`` does too.
        self.survives_crashes = False
        self._memory = mmap.mmap(-1, _SLOTS_OFFSET + required * _SLOT_BYTES)
        _HEAD.pack_into(self._memory, 0, 0, 0, 1, required, time.monotonic())

    @property
    def started(self) -> float:
        """When the server started, in seconds of the monotonic clock."""
        return float(_HEAD.unpack_from(self._memory, 0)[4])

    @property
    def latched(self) -> bool:
        """Whether every worker has been ready once."""
        return self._memory[0] == 1

    def latch(self) -> bool:
        """Note that all are ready; True for the one caller that made it so."""
        if self.latched or any(slot.state is not State.READY for slot in self.slots()):
            return False
        self._memory[0] = 1
        return True

    @property
    def stopping(self) -> bool:
        """Whether the master has begun to stop."""
        return self._memory[1] == 1

    def stop(self) -> None:
        """Tell every process that the server stops."""
        self._memory[1] = 1

    @property
    def porter_listens(self) -> bool:
        """Whether a new connection may still reach the porter, which cannot predict."""
        return self._memory[2] == 1

    @porter_listens.setter
    def porter_listens(self, listens: bool) -> None:
        self._memory[2] = int(listens)

    @property
    def failure(self) -> str | None:
        """Why the server cannot start, once a worker knows."""
        (length,) = _TEXT.unpack_from(self._memory, _TEXT_OFFSET)
        if not length:
            return None
        start = _TEXT_OFFSET + _TEXT.size
        return self._memory[start : start + length].decode("utf-8", "replace")

    def fail(self, text: str) -> None:
        """Keep the first failure's text (UTF-8, cut at 3,900 bytes)."""
        if self.failure is not None:
            return
        data = text.encode("utf-8", "replace")[: _TEXT_BYTES - _TEXT.size - 4]
        start = _TEXT_OFFSET + _TEXT.size
        self._memory[start : start + len(data)] = data
        _TEXT.pack_into(self._memory, _TEXT_OFFSET, len(data))

    def _offset(self, slot: int) -> int:
        return _SLOTS_OFFSET + slot * _SLOT_BYTES

    def slot(self, slot: int) -> Slot:
        """One worker's row."""
        offset = self._offset(slot)
        state, pid, since, heartbeat = _SLOT.unpack_from(self._memory, offset)
        start = offset + _PHASE_OFFSET
        (length,) = _TEXT.unpack_from(self._memory, start)
        start += _TEXT.size
        phase = self._memory[start : start + length].decode("utf-8", "replace")
        return Slot(State(state), pid, since, heartbeat, phase)

    def slots(self) -> list[Slot]:
        """All workers' rows."""
        return [self.slot(number) for number in range(self.required)]

    def free_slot(self) -> int:
        """The first slot without a worker.

        Raises:
            LookupError: all are taken.
        """
        for number, slot in enumerate(self.slots()):
            if slot.state is State.EMPTY:
                return number
        raise LookupError(f"all {self.required} worker slots are taken")

    def enter(self, slot: int, state: State, pid: int) -> None:
        """A worker is in a new state from now on."""
        now = time.monotonic()
        _SLOT.pack_into(self._memory, self._offset(slot), state, pid, now, now)

    def beat(self, slot: int) -> None:
        """A worker's loop is alive."""
        struct.pack_into("<d", self._memory, self._offset(slot) + 16, time.monotonic())

    def phase(self, slot: int, text: str) -> None:
        """What a loading worker is doing now."""
        data = text.encode("utf-8", "replace")[: _PHASE_BYTES - _TEXT.size]
        start = self._offset(slot) + _PHASE_OFFSET
        _TEXT.pack_into(self._memory, start, 0)
        begin = start + _TEXT.size
        self._memory[begin : begin + len(data)] = data
        _TEXT.pack_into(self._memory, start, len(data))

    @property
    def ready_count(self) -> int:
        """Workers that take requests."""
        return sum(
            self._memory[self._offset(number)] == State.READY for number in range(self.required)
        )
