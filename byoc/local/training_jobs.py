"""Training jobs: the actions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from byoc.local import job_output, training_request
from byoc.local import training_status as status
from byoc.local.faults import in_use
from byoc.local.jobs import ENDED, Jobs
from byoc.local.kinds import TRAINING_JOB
from byoc.local.queue import before
from byoc.local.shelf import Shelf
from byoc.local.training_run import TrainingRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from byoc.local.actions import Action
    from byoc.local.job_tools import Tools
    from byoc.local.jobs import Job
    from byoc.local.store import Document


class TrainingJobs:
    """CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, Stop and Delete.

    Args:
        tools: Shared by all kinds of job.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools, self._shelf = tools, Shelf(tools.context, TRAINING_JOB)
        self._jobs = Jobs(tools.queue, self._live, self._waits, tools.log)
        self._lock = threading.Lock()

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        return {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "ListTrainingJobs": self.page,
            "StopTrainingJob": self.stop,
            "DeleteTrainingJob": self.delete,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep it, and give it its place in the queue."""
        training_request.check(request)
        with self._lock:
            document = self._shelf.create(request, **status.new(request))
            self._jobs.start(request["TrainingJobName"])
        return {"TrainingJobArn": document["TrainingJobArn"]}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        return self._shelf.get(request["TrainingJobName"])

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        return self._shelf.page(request, "TrainingJobSummaries", "TrainingJobStatus", _summary)

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """SIGTERM, 120 s, SIGKILL; a job that waits ends at once."""
        name = request["TrainingJobName"]
        self._shelf.update(name, status.ask_to_stop)
        job = self._jobs.find(name)
        if job is not None and job.ticket.withdraw():
            self._shelf.update(name, status.stop)
        elif job is not None:
            job.stop()
        return {}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget one that has ended."""
        name = request["TrainingJobName"]
        if self._shelf.get(name)["TrainingJobStatus"] in status.RUNNING:
            raise in_use(f"The training job {name} has not ended; stop it first.")
        self._shelf.delete(name)
        return {}

    def recover(self) -> None:
        """What waited waits again; what ran has failed."""
        with self._lock:
            for document in self._shelf.all():
                name = document["TrainingJobName"]
                if document["TrainingJobStatus"] not in status.RUNNING or self._jobs.find(name):
                    continue
                if document["_waiting"]:
                    self._jobs.start(name)
                else:
                    self._shelf.update(name, lambda one: status.fail(one, ENDED))
                    job_output.remove(self._folder(name))

    def close(self) -> None:
        """End what runs; what waits will wait again."""
        self._jobs.close()

    def _live(self, job: Job) -> None:
        TrainingRun(self._tools, self._shelf, job, self._folder(job.name)).live()

    def _folder(self, name: str) -> Path:
        return self._tools.context.home.work / f"training-{name}"

    def _waits(self, name: str, count: int) -> None:
        self._shelf.update(name, lambda document: status.wait(document, before(count)))


def _summary(document: Document) -> dict[str, Any]:
    members = (
        "TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime",
        "LastModifiedTime", "TrainingJobStatus", "SecondaryStatus",
    )  # fmt: skip
    return {key: document[key] for key in members if key in document}
