"""The actions of training and processing jobs; what differs is given."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from byoc.local import job_output
from byoc.local.faults import in_use
from byoc.local.jobs import ENDED, Jobs
from byoc.local.queue import before
from byoc.local.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.actions import Action
    from byoc.local.job_life import JobLife
    from byoc.local.job_tools import Tools
    from byoc.local.jobs import Job
    from byoc.local.kinds import Kind
    from byoc.local.references import References
    from byoc.local.store import Document


class Status(Protocol):
    """A module with the changes of a document from one state to the next."""

    RUNNING: tuple[str, ...]

    def new(self, request: Mapping[str, Any], /) -> dict[str, Any]:
        """What a new document has beside the request."""

    def wait(self, document: Document, message: str, /) -> None:
        """It waits for its turn."""

    def ask_to_stop(self, document: Document, /) -> None:
        """A client wants it to end."""

    def stop(self, document: Document, /) -> None:
        """It has ended as a client wanted."""

    def fail(self, document: Document, reason: str, /) -> None:
        """It has failed."""


@dataclass(frozen=True)
class Sort:
    """One kind of job.

    Attributes:
        kind: Its names.
        word: ``Training`` or ``Processing``: how its operations and members begin.
        status: Its states.
        life: What runs one.
        check: Refuses requests by what they say.
        look_up: Refuses requests by what they name, which is not there.
        summary: Members of a list's entries.
    """

    kind: Kind
    word: str
    status: Status
    life: Callable[[Tools, Shelf, Job, Path], JobLife]
    check: Callable[[Mapping[str, Any]], None]
    look_up: Callable[[Mapping[str, Any], References], None]
    summary: tuple[str, ...]


class JobResource:
    """Create, Describe, List, Stop and Delete.

    Args:
        tools: Shared by all kinds of job.
        sort: Which kind this one is.
    """

    def __init__(self, tools: Tools, sort: Sort) -> None:
        self._tools, self._sort, self._status = tools, sort, sort.status
        self._shelf = Shelf(tools.context, sort.kind)
        self._jobs = Jobs(tools.queue, self._live, self._waits, tools.log)
        self._lock = threading.Lock()
        self._name, self._state = sort.kind.name, f"{sort.word}JobStatus"

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        word = self._sort.word
        return {
            f"Create{word}Job": self.create,
            f"Describe{word}Job": self.describe,
            f"List{word}Jobs": self.page,
            f"Stop{word}Job": self.stop,
            f"Delete{word}Job": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep it, and give it its place in the queue."""
        self._sort.check(request)
        self._shelf.check_free(request[self._name])
        self._sort.look_up(request, self._tools.references)
        with self._lock:
            document = self._shelf.create(request, **self._status.new(request))
            self._jobs.start(request[self._name], request)
        return {self._sort.kind.arn_member: document[self._sort.kind.arn_member]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        return self._shelf.get(request[self._name])

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        answer = f"{self._sort.word}JobSummaries"
        return self._shelf.page(request, answer, self._state, self._summary)

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """SIGTERM, 120 s, SIGKILL; a job that waits ends at once."""
        name = request[self._name]
        self._shelf.update(name, self._status.ask_to_stop)
        job = self._jobs.find(name)
        if job is not None and job.ticket.withdraw():
            self._shelf.update(name, self._status.stop)
        elif job is not None:
            job.stop()
        return {}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget one that has ended."""
        name = request[self._name]
        if self._shelf.get(name)[self._state] in self._status.RUNNING:
            raise in_use(f"The {self._sort.kind.words} {name} has not ended; stop it first.")
        self._shelf.delete(name)
        return {}

    def recover(self) -> None:
        """What waited waits again; what ran has failed."""
        with self._lock:
            for document in self._shelf.all():
                name = document[self._name]
                if document[self._state] not in self._status.RUNNING or self._jobs.find(name):
                    continue
                if document["_waiting"]:
                    self._jobs.start(name, document)
                else:
                    self._shelf.update(name, lambda one: self._status.fail(one, ENDED))
                    job_output.remove(self._folder(name))

    def close(self) -> None:
        """End what runs; what waits will wait again."""
        self._jobs.close()

    def _live(self, job: Job) -> None:
        self._sort.life(self._tools, self._shelf, job, self._folder(job.name)).live()

    def _folder(self, name: str) -> Path:
        return self._tools.context.home.work / f"{self._sort.kind.store}-{name}"

    def _waits(self, name: str, count: int) -> None:
        self._shelf.update(name, lambda document: self._status.wait(document, before(count)))

    def _summary(self, document: Document) -> dict[str, Any]:
        return {key: document[key] for key in self._sort.summary if key in document}
