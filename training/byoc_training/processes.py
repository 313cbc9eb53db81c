"""Processes below another one, from /proc: a group does not hold those that have left it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PROC = Path("/proc")
#: <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36


def children(pid: int) -> list[int]:
    """Living children of a process, the oldest first."""
    return sorted(child for child, parent in _parents().items() if parent == pid)


def descendants(pid: int) -> list[int]:
    """Living processes below a process: parents before their children."""
    below: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        below.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        next_ones = sorted(below.pop(waiting.pop(0), ()))
        found += next_ones
        waiting += next_ones
    return found


class Group:
    """The process group of a program, with what has left it where its launcher starts sessions.

    Args:
        pid: Of the program, which leads the group.
        scattered: Whether its children lead groups of their own, as torchrun's ranks do; then all
            that is below this process counts.
    """

    def __init__(self, pid: int, *, scattered: bool) -> None:
        self._pid = pid
        self._scattered = scattered

    def signal(self, number: int) -> bool:
        """Send a signal; False when nothing of it is left."""
        if self._scattered:
            left = descendants(os.getpid())
            signal_all(left, number)
            return bool(left)
        try:
            os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def tell(self, number: int) -> None:
        """Send a signal to those alone who may hand it on: the program, or its ranks."""
        # Before it has started any, the launcher itself has to be told.
        ranks = children(self._pid) if self._scattered else []
        signal_all(ranks or [self._pid], number)


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to whoever of them is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def adopt_orphans() -> None:
    """Become the parent of what is left of our descendants' children, as PID 1 is already."""
    import ctypes  # noqa: PLC0415 - only where a launcher's processes leave its group

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _parents() -> dict[int, int]:
    """The parent of every process that has not ended."""
    found: dict[int, int] = {}
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal():
            continue
        try:
            text = (_PROC / entry.name / "stat").read_text(errors="replace")
        except OSError:
            continue
        # The name in parentheses may have anything in it.
        state, parent = text.rpartition(")")[2].split()[:2]
        if state not in ("Z", "X"):
            found[int(entry.name)] = int(parent)
    return found
