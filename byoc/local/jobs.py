"""A thread for each job, from its place in the queue to its end, whoever calls it off."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

from byoc.local import demand
from byoc.local.hosts import End, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from byoc.local.hosts import Cluster, Host, Started
    from byoc.local.queue import Queue, Ticket

#: SIGTERM to SIGKILL: contract section 1.2; and when the endpoint itself is stopped.
STOP_SECONDS, SHUTDOWN_SECONDS = 120, 10
#: After one host has failed the others have this long to end by themselves.
OTHERS_SECONDS = 30
_JOIN_SECONDS = 30

ENDED = "InternalServerError: the local endpoint ended while the job ran"


class Job:
    """What is known of a job that has a thread.

    Attributes:
        name: Its own.
        ticket: Its place in the queue.
        stopped: Whether a client has asked for its end.
        shut_down: Whether the endpoint ends.
    """

    def __init__(self, name: str, ticket: Ticket) -> None:
        self.name, self.ticket = name, ticket
        self.stopped = self.shut_down = False
        self.bell = threading.Condition()
        self.thread: threading.Thread | None = None

    def cancelled(self) -> bool:
        """Whether what has been begun is to be left."""
        return self.stopped or self.shut_down

    def stop(self) -> None:
        """A client asks for its end."""
        with self.bell:
            self.stopped = True
            self.bell.notify_all()

    def shut(self) -> None:
        """The endpoint ends."""
        with self.bell:
            self.shut_down = True
            self.bell.notify_all()


class Jobs:
    """The threads of one kind of job.

    Args:
        queue: Shared with the other kinds.
        work: A job's whole life from its turn on; called in its thread. Not called for a job that
            was withdrawn while it waited.
        waits: Told how many jobs are before.
        log: The server's own.
    """

    def __init__(
        self,
        queue: Queue,
        work: Callable[[Job], None],
        waits: Callable[[str, int], None],
        log: Callable[[str], None],
    ) -> None:
        self._queue, self._work, self._waits, self._log = queue, work, waits, log
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, name: str, request: Mapping[str, Any]) -> None:
        """Give a job its place and its thread.

        Args:
            name: Its name.
            request: That made it, or its document.
        """
        job = Job(name, self._queue.enter(demand.of(request)))
        with self._lock:
            self._jobs[name] = job
        job.thread = threading.Thread(target=self._run, args=(job,), name=name, daemon=True)
        job.thread.start()

    def find(self, name: str) -> Job | None:
        """A job that waits or runs."""
        with self._lock:
            return self._jobs.get(name)

    def close(self) -> None:
        """End all; return when that is done."""
        with self._lock:
            jobs = [*self._jobs.values()]
        for job in jobs:
            job.shut()
            job.ticket.withdraw()
        until = time.monotonic() + _JOIN_SECONDS
        for job in jobs:
            if job.thread is not None:
                job.thread.join(max(0.0, until - time.monotonic()))

    def _run(self, job: Job) -> None:
        try:
            if job.ticket.wait(lambda before: self._tell(job.name, before)):
                self._work(job)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to tell
            self._log(f"job {job.name}: {error!r}")
        finally:
            with self._lock:
                if self._jobs.get(job.name) is job:
                    del self._jobs[job.name]
            job.ticket.leave()

    def _tell(self, name: str, before: int) -> None:
        try:
            self._waits(name, before)
        except sqlite3.Error as error:  # the disk is full, which is no reason not to run
            self._log(f"job {name}: {error!r}")


class Outcome:
    """How the hosts of a job have ended.

    Attributes:
        ends: By host, in the order in which they ended.
        why: ``""``, ``stopped``, ``time`` or ``shut down``: what made us end them.
        seconds: How long they ran.
    """

    def __init__(self, ends: Mapping[str, End], why: str, seconds: float) -> None:
        self.ends, self.why, self.seconds = ends, why, seconds

    @property
    def failed(self) -> str | None:
        """The first host that failed, if one did."""
        return next((name for name, end in self.ends.items() if end.code != 0), None)


def run(
    job: Job,
    cluster: Cluster,
    hosts: Sequence[Host],
    on_line: Callable[[str, str], None],
    seconds: float,
    stopping: Callable[[], None],
) -> Outcome:
    """Start all hosts and wait for their end.

    Args:
        job: Who may ask for the end.
        cluster: Where they run.
        hosts: All of them.
        on_line: Takes the name of a host and a line of its output.
        seconds: After which they are stopped.
        stopping: Called when they are, for whatever reason.

    Raises:
        HostError: One cannot be started; the others have been killed.
    """
    ends: dict[str, End] = {}
    started: dict[str, Started] = {}

    def end_of(name: str) -> Callable[[End], None]:
        def ended(end: End) -> None:
            with job.bell:
                ends[name] = end
                job.bell.notify_all()

        return ended

    def line_of(name: str) -> Callable[[str], None]:
        return lambda line: on_line(name, line)

    began = time.monotonic()
    try:
        for host in hosts:
            started[host.name] = cluster.start(host, line_of(host.name), end_of(host.name))
    except HostError:
        for one in started.values():
            one.kill()
        raise
    why = _wait(job, ends, len(hosts), began + seconds)
    if len(ends) < len(hosts):
        stopping()
        grace = SHUTDOWN_SECONDS if why == "shut down" else STOP_SECONDS
        _end(job, started, ends, grace)
    return Outcome(ends, why, time.monotonic() - began)


def _wait(job: Job, ends: Mapping[str, End], count: int, until: float) -> str:
    """Wait until all have ended, or must be; why they must."""
    others = float("inf")
    with job.bell:
        while len(ends) < count:
            now = time.monotonic()
            if job.shut_down:
                return "shut down"
            if job.stopped:
                return "stopped"
            if now >= until:
                return "time"
            if now >= others:
                return ""
            if others == float("inf") and any(end.code != 0 for end in ends.values()):
                others = now + OTHERS_SECONDS
            job.bell.wait(min(until, others, now + threading.TIMEOUT_MAX) - now)
    return ""


def _end(
    job: Job, started: Mapping[str, Started], ends: Mapping[str, End], grace_seconds: float
) -> None:
    """SIGTERM, and SIGKILL after the grace time, or a shorter one when the endpoint ends."""

    def rest() -> list[Started]:
        return [one for name, one in started.items() if name not in ends]

    for one in rest():
        one.terminate()
    began = time.monotonic()
    with job.bell:
        while rest():
            # The endpoint may be stopped while it waits for a job that was.
            grace = SHUTDOWN_SECONDS if job.shut_down else grace_seconds
            left = began + grace - time.monotonic()
            if left <= 0:
                break
            job.bell.wait(left)
    for one in rest():
        one.kill()
    with job.bell:
        job.bell.wait_for(lambda: not rest(), SHUTDOWN_SECONDS)
