"""An endpoint that serves: the fleet that requests go to, and those in flight."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byoc.local.hosting.fleet import Fleet


class Live:
    """An endpoint by its name; its fleet changes with an update, between two requests."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fleet: Fleet | None = None
        self._condition = threading.Condition(threading.Lock())

    @property
    def fleet(self) -> Fleet | None:
        """What serves now."""
        return self._fleet

    def lease(self) -> Fleet | None:
        """What serves now, kept running until `release`."""
        with self._condition:
            if self._fleet is not None:
                self._fleet.in_flight += 1
            return self._fleet

    def release(self, fleet: Fleet) -> None:
        """A request has been answered."""
        with self._condition:
            fleet.in_flight -= 1
            if fleet.in_flight == 0 and fleet is not self._fleet:
                self._condition.notify_all()

    def swap(self, fleet: Fleet | None) -> Fleet | None:
        """From now on requests go to another fleet; returns the one before."""
        with self._condition:
            before, self._fleet = self._fleet, fleet
            return before

    def drain(self, fleet: Fleet, seconds: float) -> bool:
        """Wait until no request uses a fleet that has been swapped; whether that is so."""
        until = time.monotonic() + seconds
        with self._condition:
            while fleet.in_flight:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left)
        return True
