"""What the hosts of a job know of each other: who has come, failed, been told to stop, ended.

Every host has a board, and an event that one of them pins up comes to all. The first of the
sorted hosts hands them on (`peers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The longest text of a failure that travels; the failure file takes less.
LONGEST_TEXT = 2000


@dataclass(frozen=True)
class Failure:
    """A host has failed.

    Attributes:
        host: Its name.
        text: The reason, as its own failure file has it first.
        secondary: Whether it may have failed only because another host did: its connection to
            another rank broke.
        waited: Whether its ranks waited in vain for others, which they cannot name.
    """

    host: str
    text: str
    secondary: bool = False
    waited: bool = False


class Board:
    """The state that events add up to.

    Attributes:
        hosts: All that take part, in the order of their ranks.
        here: Those whose programs may begin.
        done: Those whose programs have succeeded.
        failures: By host, in the order in which they became known.
        stopping: The first host that was told to stop, and the signal.
        events: All of them, for whoever comes later.
    """

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self.hosts = hosts
        self.here: set[str] = set()
        self.done: set[str] = set()
        self.failures: dict[str, Failure] = {}
        self.stopping: tuple[str, int] | None = None
        self.events: list[dict[str, Any]] = []

    @property
    def complete(self) -> bool:
        """Whether every host has come."""
        return len(self.here) == len(self.hosts)

    @property
    def all_done(self) -> bool:
        """Whether every program has succeeded."""
        return len(self.done) == len(self.hosts)

    @property
    def missing(self) -> list[str]:
        """Hosts that have not come."""
        return [host for host in self.hosts if host not in self.here]

    @property
    def unfinished(self) -> list[str]:
        """Hosts that are not done."""
        return [host for host in self.hosts if host not in self.done]

    def failure(self, but: str) -> Failure | None:
        """The failure of another host that explains the most: the first one of its own making."""
        others = [failure for host, failure in self.failures.items() if host != but]
        own = [failure for failure in others if not failure.secondary]
        return next(iter(own or others), None)

    def pin(self, event: dict[str, Any]) -> bool:
        """Take an event; False when it says nothing new, or nothing that makes sense."""
        host, kind = event.get("host"), event.get("event")
        if host not in self.hosts:
            return False
        if kind == "here" and host not in self.here:
            self.here.add(host)
        elif kind == "done" and host not in self.done:
            self.done.add(host)
        elif kind == "failed" and host not in self.failures:
            text = str(event.get("text"))[:LONGEST_TEXT]
            secondary, waited = bool(event.get("secondary")), bool(event.get("waited"))
            self.failures[host] = Failure(host, text, secondary, waited)
        elif kind == "stopping" and self.stopping is None and isinstance(event.get("signal"), int):
            self.stopping = host, event["signal"]
        else:
            return False
        self.events.append(event)
        return True
