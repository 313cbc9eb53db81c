"""The jobs of this machine in the order in which they came, as many as have room.

A training, processing or transform job enters when it is created and waits in its own thread::

    ticket = queue.enter(demand.of(request))     # in the Create action: keeps the order
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

from byoc.local.demand import Demand, fit, machine

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES_VARIABLE = "BYOC_LOCAL_JOBS"


class Queue:
    """Jobs run beside each other while their instances have room in this machine.

    Args:
        places: So many run in any case; default: ``BYOC_LOCAL_JOBS``, if it is set.
        capacity: Cores and memory; default: this machine's.
    """

    def __init__(self, places: int | None = None, capacity: Demand | None = None) -> None:
        self._places = _places() if places is None else places
        self._capacity = capacity or machine()
        self._tickets: list[Ticket] = []
        self._changed = threading.Condition()

    def enter(self, demand: Demand) -> Ticket:
        """Join the end.

        Args:
            demand: What the job's instances have.
        """
        ticket = Ticket(self, demand)
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
        earlier = self._tickets[: self._tickets.index(ticket)]
        for count in range(len(earlier)):
            if self._fit([*earlier[count:], ticket]):
                return count
        return len(earlier)

    def _fit(self, tickets: list[Ticket]) -> bool:
        if self._places is not None:
            return len(tickets) <= self._places
        return fit((ticket.demand for ticket in tickets), self._capacity)

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

    def __init__(self, queue: Queue, demand: Demand) -> None:
        self._queue, self.demand = queue, demand
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


def _places() -> int | None:
    given = os.environ.get(PLACES_VARIABLE, "")
    try:
        return max(1, int(given))
    except ValueError:
        return None
