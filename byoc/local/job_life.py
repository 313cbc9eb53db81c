"""The life of a training or processing job, as far as they are alike."""

from __future__ import annotations

import sqlite3
import time
import traceback
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from byoc.local import images, job_output, jobs
from byoc.local.hosts import HostError
from byoc.local.shelf import ROOM_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import ModuleType

    from byoc.local.hosts import Cluster, Host
    from byoc.local.job_tools import Tools
    from byoc.local.jobs import Job, Outcome
    from byoc.local.journal import Journal
    from byoc.local.shelf import Shelf
    from byoc.local.store import Document


class JobError(Exception):
    """The job fails: ``FailureReason``."""


class Cancelled(Exception):  # noqa: N818 - no error: a client, or the endpoint's end, wants it
    """The job ends before its program has started."""


class JobLife(ABC):
    """One job from its turn to its end.

    Args:
        tools: Shared by all.
        shelf: Documents of this kind.
        job: Who may call it off.
        folder: Where its hosts have their files.
    """

    #: CloudWatch Logs'.
    group: str
    #: Module with ``stop`` and ``fail``, the changes of a document at an early end.
    status: ModuleType

    def __init__(self, tools: Tools, shelf: Shelf, job: Job, folder: Path) -> None:
        self.tools, self.shelf, self.job, self.folder = tools, shelf, job, folder
        self._logs: dict[str, Journal] = {}
        self._cluster: Cluster | None = None

    @abstractmethod
    def run(self) -> Callable[[Document], None]:
        """Do everything; the change of the document that tells the end.

        Raises:
            JobError: It has failed.
            Cancelled: It was called off before its program had started.
        """

    @abstractmethod
    def end_helpers(self) -> None:
        """End what runs beside the program."""

    def live(self) -> None:
        """Run the job; its document says how it ended."""
        try:
            finish = self._outcome()
            self.end_helpers()
            # Whoever sees the end of the job sees all of its log.
            for log in self._logs.values():
                log.close()
            try:
                self.shelf.update(self.job.name, finish)
            except sqlite3.Error:  # the disk is full
                self._finish_when_there_is_room(finish)
        finally:
            if self._cluster is not None:
                self._cluster.close()
            job_output.remove(self.folder)

    def _finish_when_there_is_room(self, finish: Callable[[Document], None]) -> None:
        """The job's own files may be what fills the disk; else somebody has to make room."""
        job_output.remove(self.folder)
        while not self.job.shut_down:
            try:
                self.shelf.update(self.job.name, finish)
            except sqlite3.Error as error:
                self.tools.log(f"the end of {self.job.name} cannot be kept yet: {error}")
            else:
                return
            with self.job.bell:
                self.job.bell.wait_for(lambda: self.job.shut_down, ROOM_SECONDS)

    @property
    def cluster(self) -> Cluster:
        """Once `place` has made it."""
        assert self._cluster is not None  # noqa: S101 - see above
        return self._cluster

    def log(self, line: str) -> None:
        """Say something of our own in the first host's log."""
        self._logs["algo-1"].line(f"byoc: {line}")

    def place(self, image: str, arn: str, count: int, *, isolated: bool) -> None:
        """Choose what stands for the image, say so in the logs, and make the cluster.

        Raises:
            JobError: There is no such image, or no place.
        """
        now = int(time.time())
        for number in range(1, count + 1):
            stream = f"{self.job.name}/algo-{number}-{now}"
            self._logs[f"algo-{number}"] = self.tools.journals.open(self.group, stream)
        try:
            chosen = self.tools.choose(image)
            for log in self._logs.values():
                log.line(f"byoc: {chosen.words}")
            self._cluster = self.tools.cluster(chosen, self.job.name, arn, count, isolated=isolated)
        except images.ImageError as error:
            self.log(str(error))
            raise JobError(f"ClientError: Cannot access the image: {error}") from error
        except HostError as error:
            self.log(str(error))
            raise JobError(f"InternalServerError: {error}") from error

    def host_folders(self, inside: str) -> list[Path]:
        """What all hosts have below ``/opt/ml``, where they have it."""
        folders = [self.folder / name / "ml" / inside for name in self.cluster.names]
        return [folder for folder in folders if folder.is_dir()]

    def start(
        self,
        hosts: Sequence[Host],
        seconds: float,
        read: Callable[[str], None],
        stopping: Callable[[], None],
    ) -> Outcome:
        """Run all hosts to their end.

        Args:
            hosts: As the cluster names them.
            seconds: The longest time.
            read: Takes each line of output.
            stopping: See `jobs.run`.

        Raises:
            JobError: One cannot be started, or the endpoint ends.
        """
        logs = dict(zip(self.cluster.names, self._logs.values(), strict=True))

        def on_line(host: str, line: str) -> None:
            logs[host].line(line)
            read(line)

        try:
            outcome = jobs.run(self.job, self.cluster, hosts, on_line, seconds, stopping)
        except HostError as error:
            self.log(str(error))
            raise JobError(f"ClientError: {error}") from error
        if outcome.why == "shut down":
            raise JobError(jobs.ENDED)
        return outcome

    def check(self) -> None:
        """Whether to go on.

        Raises:
            Cancelled: Somebody does not want it.
        """
        if self.job.cancelled():
            raise Cancelled

    def note(self, **members: Any) -> None:
        """Give the document's members new values."""
        self.shelf.set(self.job.name, **members)

    def _outcome(self) -> Callable[[Document], None]:
        try:
            return self.run()
        except JobError as error:
            reason = str(error)
        except Cancelled:
            if not self.job.shut_down:
                stop: Callable[[Document], None] = self.status.stop
                return stop
            reason = jobs.ENDED
        except Exception as error:  # noqa: BLE001 - a fault of ours ends the job, clearly
            self.tools.log(f"{self.group} {self.job.name}\n{traceback.format_exc()}")
            reason = f"InternalServerError: the local endpoint failed: {error}"
        return lambda document: self.status.fail(document, reason)


def reached(cluster: Cluster, *, isolated: bool) -> dict[str, str]:
    """Variables of every host; an isolated one is not told where the endpoint is."""
    return {
        name: value
        for name, value in cluster.variables.items()
        if not (isolated and name.startswith("AWS_"))
    }


def reason(outcome: Outcome, hosts: Sequence[str], text_of: Callable[[str], str]) -> str:
    """``FailureReason`` of the first host that failed; empty when none did.

    Args:
        outcome: Of all hosts.
        hosts: All that there are.
        text_of: What a host has left as its reason.
    """
    if outcome.why:
        return ""
    host = outcome.failed
    if host is None:
        lost = len(outcome.ends) < len(hosts)
        return "InternalServerError: a host could not be ended" if lost else ""
    end = outcome.ends[host]
    if end.code < 0:
        return f"InternalServerError: {end.words}"
    return job_output.algorithm_error(text_of(host) or end.words, end.code)
