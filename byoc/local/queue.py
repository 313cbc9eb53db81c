"""The jobs of this machine in the order in which they came, a few at a time.

A training, processing or transform job enters when it is created and waits in its own thread::

    ticket = queue.enter()                       # in the Create action: keeps the order
    ...
    if ticket.wait(lambda before: tell(f"{before} jobs are before this one")):
        run()                                    # it is this job's turn
    else:
        stopped()                                # withdrawn while it waited
    ticket.leave()                               # in a finally: the next one's turn

The Stop action calls `Ticket.withdraw`: a job that still waits ends at once, one that runs is not
concerned. `Queue.close` withdraws all.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: One: a job may use all cores and all memory, as it has them to itself on the platform.
PLACES_VARIABLE, PLACES = "BYOC_LOCAL_JOBS", 1


class Queue:
    """At most ``places`` jobs run; the others wait.

    Args:
        places: Default: ``BYOC_LOCAL_JOBS``, else one.
    """

    def __init__(self, places: int | None = None) -> None:
        self._places = _places() if places is None else places
        self._tickets: list[Ticket] = []
        self._changed = threading.Condition()

    def enter(self) -> Ticket:
        """Join the end."""
        ticket = Ticket(self)
        with self._changed:
            self._tickets.append(ticket)
        return ticket

    def close(self) -> None:
        """Withdraw whatever waits."""
        with self._changed:
            waiting = [*self._tickets]
        for ticket in waiting:
            ticket.withdraw()

    def _wait(self, ticket: Ticket, tell: Callable[[int], None]) -> bool:
        told = -1
        while True:
            with self._changed:
                while not ticket.withdrawn and self._before(ticket) == told:
                    self._changed.wait()
                if ticket.withdrawn:
                    return False
                told = self._before(ticket)
                if told == 0:
                    ticket.running = True
                    return True
            tell(told)

    def _before(self, ticket: Ticket) -> int:
        """How many must end, or leave, before its turn; those that run at its side do not count."""
        if ticket not in self._tickets:
            return 0
        return max(0, self._tickets.index(ticket) - self._places + 1)

    def _withdraw(self, ticket: Ticket) -> bool:
        with self._changed:
            if ticket.running or ticket not in self._tickets:
                return False
            ticket.withdrawn = True
            self._tickets.remove(ticket)
            self._changed.notify_all()
            return True

    def _leave(self, ticket: Ticket) -> None:
        with self._changed:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            self._changed.notify_all()


class Ticket:
    """A job's place in the queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.running = self.withdrawn = False

    def wait(self, tell: Callable[[int], None] = lambda _: None) -> bool:
        """Wait for this job's turn.

        Args:
            tell: Called by this thread with the number of jobs that must end before, at the start
                and when it changes; not at all when it is the job's turn at once.

        Returns:
            False when the ticket was withdrawn.
        """
        return self._queue._wait(self, tell)  # noqa: SLF001 - its other half

    def withdraw(self) -> bool:
        """Leave if still waiting; whether it was."""
        return self._queue._withdraw(self)  # noqa: SLF001 - its other half

    def leave(self) -> None:
        """Let the next one run; may be said several times."""
        self._queue._leave(self)  # noqa: SLF001 - its other half


def before(count: int) -> str:
    """Words for a status message."""
    are = "job is" if count == 1 else "jobs are"
    return f"Waiting on this machine: {count} {are} before this one"


def _places() -> int:
    try:
        return max(1, int(os.environ.get(PLACES_VARIABLE, PLACES)))
    except ValueError:
        return PLACES
