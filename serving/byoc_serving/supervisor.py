"""Keeps one model process a device: starts them, replaces them, kills those that hang."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc_serving.table import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.running import Running
    from byoc_serving.table import Table

log = logging.getLogger("byoc_serving")

#: The exit code of a process that cannot load; its cause is its phase in the table.
LOAD_FAILED = 3
#: Processes of one number that may die while loading before the first is ready: once is chance.
FIRST_LOAD_DEATHS = 2
#: The same for replacements, which come again after a pause.
LOAD_DEATHS = 10
#: Replacements that may fail to load, with an error of their own, before the server gives up.
LOAD_FAILURES = 3
#: A process that dies sooner after it was ready counts as one that crashes in a loop.
SHORT_LIFE_S = 1.0
_CRASHES_AT_ONCE = 5
#: What such a loop waits each time: loading takes its time as well, and no request is run by more
#: than two processes that die of it, so this only has to spare the cores.
_CRASH_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0
#: Fronts end sooner after they have let go of their model process.
_LEFT_PAUSE_S = 1.0
#: A process that has given up loading has told why by then.
_STOP_S = 5.0


@dataclass
class _Child:
    """The process of one number, through its incarnations."""

    pid: int = 0
    incarnation: int = 0
    due: float = 0.0
    crashes: int = 0
    load_deaths: int = 0
    load_failures: int = 0
    hung: bool = False


class Supervisor:
    """The master's side of the model processes.

    Args:
        table: has a row for each.
        running: what they run.
        count: how many.
        forward_timeout_s: a batch that runs longer has hung.
        spawn: starts the process of a number and incarnation; returns its pid.
    """

    def __init__(
        self,
        table: Table,
        running: Running,
        count: int,
        forward_timeout_s: float,
        spawn: Callable[[int, int], int],
    ) -> None:
        self._table = table
        self._running = running
        self._forward_timeout_s = forward_timeout_s
        self._spawn = spawn
        self._children = [_Child() for _ in range(count)]

    @property
    def pids(self) -> list[int]:
        """The processes that live."""
        return [child.pid for child in self._children if child.pid]

    def check(self) -> None:
        """Reap what has ended, kill what hangs, start what is due."""
        for number, child in enumerate(self._children):
            if child.pid:
                pid, status = _reap(child.pid)
                if pid:
                    child.pid = 0
                    self._ended(number, child, pid, status)
                else:
                    self._watch(number, child)
            if not child.pid and child.due <= time.monotonic() and self._table.failure is None:
                self._start(number, child)

    def due_in_s(self) -> float:
        """Seconds until ``check`` has something to do that no signal announces."""
        now = time.monotonic()
        waits = [child.due - now for child in self._children if not child.pid]
        return max(0.0, min(waits, default=1.0))

    def _start(self, number: int, child: _Child) -> None:
        self._table.enter(number, State.LOADING, 0)
        self._table.phase(number, "starting")
        child.hung = False
        child.pid = self._spawn(number, child.incarnation)
        child.incarnation += 1

    def _watch(self, number: int, child: _Child) -> None:
        incarnation = child.incarnation - 1
        busy_s = self._running.busy_s(number, incarnation)
        if child.hung or busy_s <= self._forward_timeout_s:
            return
        child.hung = True
        log.error(
            "model process %d hangs: a batch has been running for %.1f s, the limit is %g s "
            "(BYOC_FORWARD_TIMEOUT_SECONDS); it is killed",
            child.pid,
            busy_s,
            self._forward_timeout_s,
        )
        self._running.condemn(number, incarnation)
        os.kill(child.pid, signal.SIGKILL)

    def _ended(self, number: int, child: _Child, pid: int, status: int) -> None:
        row = self._table.slot(number)
        self._table.enter(number, State.EMPTY, 0)
        now = time.monotonic()
        if row.state is State.DRAINING:
            # The server stops and no front was connected. Should one still need it, it comes back.
            child.due = now + _LEFT_PAUSE_S
        elif row.state is State.READY:
            child.load_deaths = child.load_failures = 0
            child.crashes = child.crashes + 1 if now - row.since < SHORT_LIFE_S else 0
            child.due = now + (_CRASH_PAUSE_S if child.crashes > _CRASHES_AT_ONCE else 0.0)
            log.error(
                "model process %d ended: %s; its requests wait for the next", pid, _how(status)
            )
        elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == LOAD_FAILED:
            child.load_failures += 1
            limit = LOAD_FAILURES if self._table.latched else 1
            self._hopeless(child.load_failures, limit, row.phase)
            child.due = now + 0.5 * child.load_failures
        else:
            child.load_deaths += 1
            limit = LOAD_DEATHS if self._table.latched else FIRST_LOAD_DEATHS
            self._hopeless(
                child.load_deaths,
                limit,
                f"{child.load_deaths} model processes in a row died while loading (last: process "
                f"{pid}, {_how(status)}, {row.phase}); most often the memory is too small for the "
                "model: use a larger instance or a smaller model",
            )
            child.due = now + min(_LONGEST_PAUSE_S, 0.05 * 2 ** (child.load_deaths - 1))

    def _hopeless(self, seen: int, limit: int, cause: str) -> None:
        if self._table.stopping:
            return
        if seen >= limit:
            self._table.fail(cause)
        else:
            log.error("loading failed, attempt %d of %d: %s", seen, limit, cause)

    def stop(self) -> None:
        """Wait until the processes have ended: they see that the fronts have gone."""
        deadline = time.monotonic() + _STOP_S
        for number, child in enumerate(self._children):
            loading = self._table.slot(number).state is State.LOADING
            if child.pid and loading and self._table.failure is None:
                # The fronts have gone: nobody will ask the model that it would load.
                _kill(child.pid, signal.SIGKILL)
            while child.pid:
                if _reap(child.pid)[0]:
                    child.pid = 0
                elif time.monotonic() > deadline:
                    _kill(child.pid, signal.SIGKILL)
                    deadline += _STOP_S
                else:
                    time.sleep(0.01)


def _reap(pid: int) -> tuple[int, int]:
    try:
        return os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return pid, 0


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = ", perhaps for lack of memory" if number == signal.SIGKILL else ""
        return f"signal {signal.Signals(number).name}{hint}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
