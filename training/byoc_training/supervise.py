"""Runs one process group as PID 1 must: tells it to stop, waits, reaps, and ends with it.

Decisions:

* The program runs in a session of its own, without input. Its output is inherited untouched;
  its error output passes through here byte by byte, and its end is kept (see `tail`).
* The first stop signal is handed on: to the program alone, or to its whole group where a shell
  is in between (see `launch.Plan`). It then has the grace time. When the program is gone, what
  is left of its group is told and has the rest of that time; after half of the time the whole
  group is told in any case; at its end the group is killed. Further stop signals change
  nothing.
* Without a stop signal, processes that the program leaves behind are told at once and killed
  after two seconds: a forgotten helper that holds a pipe open must not keep a paid machine.
* The ranks of torchrun are no part of its group: they are told, and killed, one by one.
* When another host of the job fails, the program is told to stop and has a short time only; when
  another host is told to stop, it is as if this one had been.
* The exit code is the program's own. One that catches SIGTERM, saves and exits 0 has succeeded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc_training import cause, collective, memory, processes
from byoc_training.console import STDERR, Console, write_all
from byoc_training.errors import ContractError, SourceError
from byoc_training.launch import Stop
from byoc_training.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc_training.board import Failure
    from byoc_training.launch import Plan
    from byoc_training.peers import Peers
    from byoc_training.signals import StopSignals

LEFTOVER_SECONDS = 2.0
#: How long the program has when another host has failed: there is no use in what it does.
PEER_FAILED_SECONDS = 10.0
#: How long the ranks have, when another host's have waited in vain, to say that they have as well.
SETTLE_SECONDS = 3.0
#: Longest time between two looks at what the other hosts say.
_PEERS_SECONDS = 1.0
#: How often to look whether a group has gone; nothing tells us of other processes' children.
_LOOK_SECONDS = 0.02
_READ_BYTES = 64 * 1024
#: Together what the largest pipe holds. A writer that never pauses must not keep us from the rest.
_READS_AT_ONCE = 16


@dataclass(frozen=True)
class Outcome:
    """How the process ended.

    Attributes:
        code: As a shell would have it: its exit code, or 128 + n for signal n.
        signal: The signal that ended it, or 0.
        stopped_by: The stop signal that this process was sent, or None.
        killed: Whether it was killed here, after the grace time.
        out_of_memory: Whether the kernel killed a process of this container for memory.
        memory_limit: The container's memory for people.
        stderr: The last bytes of its error output.
        seconds: How long it ran.
        peer_failure: Another host's failure that it was stopped for, or None.
        absent: Ranks of this host that the other one's waited for, and that gave no sign.
    """

    code: int
    signal: int
    stopped_by: int | None
    killed: bool
    out_of_memory: bool
    memory_limit: str
    stderr: bytes
    seconds: float
    peer_failure: Failure | None = None
    absent: tuple[int, ...] = ()


def run(
    plan: Plan,
    environ: Mapping[str, str],
    stops: StopSignals,
    grace_seconds: float,
    console: Console,
    peers: Peers | None = None,
) -> Outcome:
    """Run the plan's process to its end.

    Args:
        plan: What to run.
        environ: Variables that the plan's are added to.
        stops: The handlers, already installed.
        grace_seconds: Time from a stop signal to SIGKILL.
        console: Takes a line for each decision.
        peers: The other hosts, if the job has any that matter.

    Raises:
        SourceError: The program cannot be started.
        ContractError: Arguments and variables are larger than the kernel takes.
        Interrupted: A stop signal came before it was started.
    """
    stops.note_only()
    if plan.stop is Stop.CHILDREN:
        processes.adopt_orphans()
    before = memory.state()
    started = time.monotonic()
    process = _start(plan, environ)
    supervisor = _Supervisor(process, plan, stops, grace_seconds, console, peers)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(supervisor.kill_group)
        status = supervisor.wait()
    after = memory.state()
    number = -status if status < 0 else 0
    return Outcome(
        code=128 + number if number else status,
        signal=number,
        stopped_by=supervisor.stopped_by,
        killed=supervisor.killed,
        out_of_memory=after.killed_since(before),
        memory_limit=after.limit,
        stderr=supervisor.tail.content(),
        seconds=time.monotonic() - started,
        peer_failure=supervisor.peer_failure,
        absent=supervisor.absent,
    )


def _start(plan: Plan, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            plan.command,
            cwd=plan.directory,
            env={**environ, **plan.variables},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise ContractError(
                "hyperparameters and variables together are larger than the kernel hands to a "
                "process; make them smaller or put them into a channel"
            ) from error
        raise SourceError(
            f"cannot start {plan.label} with {plan.command[0]}: {error.strerror}"
        ) from error


class _Supervisor:
    """The state of one run. Single-threaded: everything is an event of one poll."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        plan: Plan,
        stops: StopSignals,
        grace_seconds: float,
        console: Console,
        peers: Peers | None,
    ) -> None:
        self.tail = Tail()
        self.killed = False
        self.stopped_by: int | None = None
        self.peer_failure: Failure | None = None
        self.absent: tuple[int, ...] = ()
        self._settled_at: float | None = None
        self._peers = peers
        self._process = process
        self._group = processes.Group(process.pid, scattered=plan.stop is Stop.CHILDREN)
        self._plan = plan
        self._stops = stops
        self._grace_seconds = grace_seconds
        self._console = console
        self._status: int | None = None
        self._told: int | None = None
        self._kill_at: float | None = None
        self._tell_group_at: float | None = None
        self._group_told = False
        self._group_killed = False
        assert process.stderr is not None  # noqa: S101 - tells the type checker what PIPE means
        self._stderr = process.stderr.fileno()
        os.set_blocking(self._stderr, False)
        self._stderr_open = True

    def wait(self) -> int:
        """Until the program and its group are gone; its status, negative for a signal."""
        while True:
            for descriptor, _ in self._ready():
                if descriptor == self._stderr:
                    self._read()
                elif descriptor == self._stops.wakeup:
                    self._stops.drain()
            self._reap()
            now = time.monotonic()
            if self._peers is not None:
                self._peers.turn()
            self._hand_on_stop(now)
            self._heed_failure(now)
            if self._status is not None and self._group_is_done(now):
                self._read()
                return self._status
            self._enforce(now)

    def kill_group(self) -> None:
        """Whatever happens, no process of the group stays behind."""
        self._group.signal(signal.SIGKILL)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _ready(self) -> list[tuple[int, int]]:
        """Descriptors with something to read, made anew: the other hosts' come and go."""
        poll = select.poll()
        poll.register(self._stops.wakeup, select.POLLIN)
        if self._stderr_open:
            poll.register(self._stderr, select.POLLIN)
        timeout_ms = self._timeout_ms()
        if self._peers is not None:
            for descriptor, events in self._peers.descriptors():
                poll.register(descriptor, events)
            longest_ms = _PEERS_SECONDS * 1000
            timeout_ms = longest_ms if timeout_ms is None else min(timeout_ms, longest_ms)
        return poll.poll(timeout_ms)

    def _timeout_ms(self) -> float | None:
        if self._status is not None:
            return _LOOK_SECONDS * 1000
        deadlines = [at for at in (self._kill_at, self._tell_group_at) if at is not None]
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1

    def _read(self) -> None:
        """Pass on what the pipe holds; a closed pipe is no longer polled."""
        for _ in range(_READS_AT_ONCE if self._stderr_open else 0):
            try:
                data = os.read(self._stderr, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._stderr_open = False
                return
            write_all(STDERR, data)
            self.tail.add(data)

    def _reap(self) -> None:
        """Collect every child that ended: PID 1 also gets the orphans of others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._process.pid:
                self._status = os.waitstatus_to_exitcode(status)
                self._process.returncode = self._status

    def _hand_on_stop(self, now: float) -> None:
        """A stop signal to this process, or to another host's, is one to the program."""
        number, source = self._stops.first, ""
        if self._peers is not None and self._peers.board.stopping is not None:
            host, theirs = self._peers.board.stopping
            if number is None:
                number, source = theirs, f" by {host}"
        if number is None or self.stopped_by is not None:
            return
        self.stopped_by = number
        if self._peers is not None and not source:
            self._peers.tell("stopping", signal=number)
        name = signal.Signals(number).name
        self._tell(
            number,
            now,
            self._grace_seconds,
            f"{name} received{source}: told {self._plan.label}, which has "
            f"{self._grace_seconds:g} s to end",
        )

    def _heed_failure(self, now: float) -> None:
        """Without another host there is nothing to go on with, except that a stop is one."""
        if self._peers is None or self._peers.failure is None or self.stopped_by is not None:
            return
        failure = self._peers.failure
        if failure.waited and self._status is None and not self._told:
            if self._settled_at is None:
                self._settled_at = now + SETTLE_SECONDS
            if now < self._settled_at:
                return
            self._find_absent(failure)
        if self.peer_failure is None:
            self._tell(
                signal.SIGTERM,
                now,
                min(self._grace_seconds, PEER_FAILED_SECONDS),
                f"{failure.host} failed: ending {self._plan.label}",
            )
        self.peer_failure = self._peers.failure

    def _find_absent(self, failure: Failure) -> None:
        """Whom the other host's ranks waited for: those of this one that say nothing of it."""
        assert self._peers is not None  # noqa: S101 - whose failure it is
        lines = cause.clean_lines(self.tail.content())
        waiting = collective.read(lines).waiting
        self.absent = tuple(rank for rank in self._plan.ranks if rank not in waiting)
        if self.absent:
            # At once: the other host waits for the reason only for so long.
            text = collective.absence(self.absent, self._peers.current, failure.text)
            self._peers.tell("failed", text=text, secondary=False)

    def _tell(self, number: int, now: float, grace_seconds: float, line: str) -> None:
        """Tell the program, once, that it has to end; killing is for later."""
        if self._told is not None:
            return
        self._told = number
        self._kill_at = now + grace_seconds
        if self._status is not None:
            return
        self._console.info(line)
        if self._plan.stop is Stop.GROUP:
            self._group_told = True
            self._group.signal(number)
            return
        self._tell_group_at = now + grace_seconds / 2
        self._group.tell(number)

    def _group_is_done(self, now: float) -> bool:
        """After the program's end: tell what is left of the group, and wait for it."""
        if self._group_killed or not self._group.signal(0):
            return True
        if self._kill_at is None:
            self._kill_at = now + LEFTOVER_SECONDS
            self._console.info(f"{self._plan.label} left processes behind; ending them")
        if not self._group_told:
            self._group_told = True
            self._group.signal(signal.SIGTERM)
        return False

    def _enforce(self, now: float) -> None:
        if self._tell_group_at is not None and now >= self._tell_group_at:
            self._tell_group_at = None
            if not self._group_told:
                self._group_told = True
                self._console.warning(f"{self._plan.label} still runs; telling its whole group")
                self._group.signal(self._told or signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            if self._status is None:
                self.killed = True
                self._console.warning(f"{self._plan.label} did not end in time; killing its group")
            self._group.signal(signal.SIGKILL)
            self._kill_at = now + LEFTOVER_SECONDS
            # Killed, yet perhaps still listed: zombies that another process has to reap.
            self._group_killed = self._status is not None
