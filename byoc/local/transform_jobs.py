"""Transform jobs: a model's container asked about every record of some objects."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from byoc.local import demand
from byoc.local.faults import AwsError, invalid, limit_exceeded
from byoc.local.hosting import model_data
from byoc.local.hosting.plans import container_of
from byoc.local.kinds import MODEL, TRANSFORM_JOB
from byoc.local.queue import before
from byoc.local.shelf import Shelf
from byoc.local.training_request import check_uri
from byoc.local.transform.job import Job, JobError
from byoc.local.transform.requests import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.actions import Action, Context
    from byoc.local.clients import Clients
    from byoc.local.journal import Journals
    from byoc.local.queue import Queue, Ticket
    from byoc.local.references import References
    from byoc.local.store import Document

LOG_GROUP = "/aws/sagemaker/TransformJobs"
ENDED = ("Completed", "Failed", "Stopped")
#: MaxPayloadInMB times MaxConcurrentTransforms.
MOST_MB = 100
_LONGEST_REASON = 1024
#: Jobs that wait or run.
MOST_JOBS = 100
_CUT_SHORT = "InternalServerError: the local endpoint ended while the job ran."
#: For a job to end when the server does: its container has 30 s.
_END_SECONDS = 45.0


class TransformJobs:
    """CreateTransformJob, DescribeTransformJob, ListTransformJobs, StopTransformJob.

    Args:
        context: What all resources share.
        runner: ``auto``, ``docker`` or ``process``.
        log: The server's own.
        clients: Of S3.
        journals: Where output goes.
        queue: All jobs of this machine.
        references: Looks up what requests name.
    """

    def __init__(
        self,
        context: Context,
        runner: str,
        log: Callable[[str], None],
        clients: Clients,
        journals: Journals,
        queue: Queue,
        references: References,
    ) -> None:
        self._context, self._runner, self._log = context, runner, log
        self._shelf, self._models = Shelf(context, TRANSFORM_JOB), Shelf(context, MODEL)
        self._clients, self._journals, self._queue = clients, journals, queue
        self._references = references
        self._jobs: dict[str, tuple[Job, Ticket, threading.Thread]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def actions(self) -> Mapping[str, Action]:
        """By the operation's name."""
        return {
            "CreateTransformJob": self.create,
            "DescribeTransformJob": self.describe,
            "ListTransformJobs": self.page,
            "StopTransformJob": self.stop,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Queue a job."""
        container = container_of(self._models.get(request["ModelName"]))
        _check(request, container)
        self._shelf.check_free(request["TransformJobName"])
        self._references.check_source(request["TransformInput"]["DataSource"]["S3DataSource"])
        if len(self._jobs) >= MOST_JOBS:
            raise limit_exceeded(f"{MOST_JOBS} transform jobs wait or run; stop some, or wait.")
        document = self._shelf.create(request, TransformJobStatus="InProgress", _waiting=True)
        self._start(document, container)
        return {"TransformJobArn": document["TransformJobArn"]}

    def _start(self, document: Document, container: Mapping[str, Any]) -> None:
        """Give a job its place in the queue and its thread."""
        name = document["TransformJobName"]
        job = Job(document, container, self._folder / name, self._context, self._runner)
        ticket = self._queue.enter(demand.of(document))
        thread = threading.Thread(
            target=self._run, args=(name, job, ticket), name=f"transform-{name}", daemon=True
        )
        with self._lock:
            self._jobs[name] = job, ticket, thread
        thread.start()

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything about one."""
        return self._shelf.get(request["TransformJobName"])

    def page(self, request: dict[str, Any]) -> dict[str, Any]:
        """A page of all."""
        return self._shelf.page(request, "TransformJobSummaries", "TransformJobStatus", _summary)

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to stop one."""
        name = request["TransformJobName"]

        def change(document: Document) -> None:
            status = document["TransformJobStatus"]
            if status != "InProgress":
                raise invalid(
                    f"The request was rejected because the transform job is in status {status}."
                )
            document["TransformJobStatus"] = "Stopping"

        self._shelf.update(name, change)
        with self._lock:
            found = self._jobs.get(name)
        if found is not None:
            job, ticket, _ = found
            job.stopping.set()
            ticket.withdraw()
        return {}

    def recover(self) -> None:
        """What waited waits again; what ran when an earlier process ended has failed."""
        model_data.remove(self._folder)
        for document in self._shelf.all():
            name, status = document["TransformJobName"], document["TransformJobStatus"]
            if status in ENDED or name in self._jobs:
                continue
            if status == "Stopping":
                self._end(name, "Stopped", None)
            elif document.get("_waiting"):
                self._wait_again(document)
            else:
                self._end(name, "Failed", _CUT_SHORT)

    def _wait_again(self, document: Document) -> None:
        try:
            container = container_of(self._models.get(document["ModelName"]))
        except AwsError as error:
            self._end(document["TransformJobName"], "Failed", f"ClientError: {error.message}")
        else:
            self._start(document, container)

    def close(self) -> None:
        """Stop what runs; the next start says that it has failed."""
        self._closed.set()
        self._queue.close()
        with self._lock:
            jobs = [*self._jobs.values()]
        for job, _, _ in jobs:
            job.stopping.set()
        until = time.monotonic() + _END_SECONDS
        for _, _, thread in jobs:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def _folder(self) -> Path:
        return self._context.home.work / "transform"

    def _run(self, name: str, job: Job, ticket: Ticket) -> None:
        status, reason = "Completed", None
        try:
            if ticket.wait(lambda count: self._log(f"transform job {name}: {before(count)}")):
                self._shelf.set(name, TransformStartTime=time.time(), _waiting=False)
                self._work(name, job)
            else:
                status = "Stopped"
        except StoppedError:
            status = "Stopped"
        except JobError as error:
            status, reason = "Failed", str(error)
        except Exception as error:  # noqa: BLE001 - told to whoever asks
            self._log(f"transform job {name}: {error!r}")
            status, reason = "Failed", f"InternalServerError: the local endpoint failed: {error}"
        finally:
            ticket.leave()
        try:
            if not (self._closed.is_set() and status != "Completed"):
                self._end(name, status, reason)
        finally:
            with self._lock:
                del self._jobs[name]

    def _work(self, name: str, job: Job) -> None:
        # An instance's name, as EC2 gives it.
        stream = f"{name}/i-0{secrets.token_hex(8)}"
        data_log = self._journals.open(LOG_GROUP, f"{stream}/data-log")
        try:
            job.run(self._clients("s3"), self._journals.open(LOG_GROUP, stream), data_log)
        finally:
            data_log.close()

    def _end(self, name: str, status: str, reason: str | None) -> None:
        members: dict[str, Any] = {"TransformJobStatus": status, "TransformEndTime": time.time()}
        if reason is not None:
            members["FailureReason"] = reason[:_LONGEST_REASON]
        self._shelf.settle(name, self._closed, self._log, **members)


def _check(request: Mapping[str, Any], container: Mapping[str, Any]) -> None:
    """Refuse what cannot be done.

    Raises:
        AwsError: As AWS does, or because it is not done locally.
    """
    given = request["TransformInput"]
    uri = given["DataSource"]["S3DataSource"]["S3Uri"]
    check_uri(uri, "transformInput.dataSource.s3DataSource.s3Uri")
    check_uri(request["TransformOutput"]["S3OutputPath"], "transformOutput.s3OutputPath")
    split, kind = given.get("SplitType", "None"), given["DataSource"]["S3DataSource"]["S3DataType"]
    if split not in ("None", "Line"):
        raise invalid(f"SplitType {split} is not done locally; None and Line are.")
    if kind not in ("S3Prefix", "ManifestFile"):
        raise invalid(f"S3DataType {kind} is not done locally; S3Prefix and ManifestFile are.")
    for name, default in (("InputFilter", "$"), ("OutputFilter", "$"), ("JoinSource", "None")):
        value = request.get("DataProcessing", {}).get(name, default)
        if value != default:
            raise invalid(f"DataProcessing with {name} {value} is not done locally.")
    if container.get("Mode") == "MultiModel" or container.get("ModelDataSource"):
        raise invalid("Batch transform takes models with one archive: a ModelDataUrl.")
    payload = request.get("MaxPayloadInMB", 6)
    at_once = request.get("MaxConcurrentTransforms", 1)
    if payload > MOST_MB or payload * at_once > MOST_MB:
        raise invalid(
            f"MaxPayloadInMB {payload} times MaxConcurrentTransforms {at_once} is more than "
            f"{MOST_MB} MB."
        )


def _summary(document: Document) -> dict[str, Any]:
    keys = (
        "TransformJobName",
        "TransformJobArn",
        "CreationTime",
        "TransformEndTime",
        "LastModifiedTime",
        "TransformJobStatus",
        "FailureReason",
    )
    return {key: document[key] for key in keys if key in document}
