"""Processes that outlive whoever started them.

A program may start others in groups of their own, and a killed endpoint leaves all of them behind.
They have inherited a variable that tells whose they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: ``HOME|SERVER|JOB|HOST`` of what a process belongs to.
MARK = "BYOC_LOCAL_MARK"


def mark(home: Path, *parts: str) -> str:
    """The variable's value for a process of this server."""
    return "|".join((str(home), str(os.getpid()), *parts))


def end(value: str) -> None:
    """Kill every process with exactly this mark."""
    _kill(lambda found: found == value)


def end_of_others(home: Path) -> None:
    """Kill what earlier servers on this folder have left behind."""
    ours = f"{home}|{os.getpid()}|"
    _kill(lambda found: found.startswith(f"{home}|") and not found.startswith(ours))


def _kill(concerned: Callable[[str], bool]) -> None:
    prefix = f"{MARK}=".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            content = (folder / "environ").read_bytes()
        except OSError:  # gone, or another user's
            continue
        if prefix not in content:
            continue
        for variable in content.split(b"\0"):
            if variable.startswith(prefix) and concerned(variable[len(prefix) :].decode()):
                with contextlib.suppress(OSError):
                    os.kill(int(folder.name), signal.SIGKILL)
