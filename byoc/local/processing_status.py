"""The states of a processing job, with their times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.store import Document

RUNNING: tuple[str, ...] = ("InProgress", "Stopping")
OVER_TIME = "Processing job runtime exceeded MaxRuntimeInSeconds provided"


def new(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a new job's document has beside the request."""
    return {"ProcessingJobStatus": "InProgress", "_waiting": True, "_request": [*request]}


def wait(document: Document, message: str) -> None:
    """It is not the job's turn; there is no member for that, and the exit message is still free."""
    if document["_waiting"]:
        document["ExitMessage"] = message


def prepare(document: Document) -> None:
    """It is the job's turn."""
    document["_waiting"] = False
    document.pop("ExitMessage", None)
    document["ProcessingStartTime"] = time.time()


def ask_to_stop(document: Document) -> None:
    """A client wants it to end.

    Raises:
        AwsError: It has ended.
    """
    now = document["ProcessingJobStatus"]
    if now not in RUNNING:
        raise invalid(f"The request was rejected because the processing job is in status {now}.")
    document["ProcessingJobStatus"] = "Stopping"


def complete(document: Document) -> None:
    """The program has ended with success, and everything is stored."""
    _end(document, "Completed")


def stop(document: Document) -> None:
    """It has been stopped as a client wanted."""
    if document["_waiting"]:
        document.pop("ExitMessage", None)
    _end(document, "Stopped")


def exceed(document: Document) -> None:
    """Its time was over."""
    document.setdefault("ExitMessage", OVER_TIME)
    _end(document, "Stopped")


def fail(document: Document, reason: str) -> None:
    """It has failed."""
    document["FailureReason"] = reason[:1024]
    _end(document, "Failed")


def _end(document: Document, status: str) -> None:
    document.update(ProcessingJobStatus=status, ProcessingEndTime=time.time(), _waiting=False)
