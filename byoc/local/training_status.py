"""The states of a training job, with the times and the words of the platform."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.store import Document

#: Of a request that sets no limit (contract section 1.2).
DEFAULT_CONDITION = {"MaxRuntimeInSeconds": 24 * 3600}
RUNNING: tuple[str, ...] = ("InProgress", "Stopping")
#: What a description has also when the request does not; SDK v2's `attach` reads some of it.
_SWITCHES = (
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
)
_OUTPUT = {"KmsKeyId": "", "CompressionType": "GZIP"}
_CHANNEL = {"CompressionType": "None", "RecordWrapperType": "None"}


def new(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a new job's document has beside the request."""
    config = request["OutputDataConfig"]
    base = f"{config['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"
    ending = "model/" if config.get("CompressionType") == "NONE" else "model.tar.gz"
    document: dict[str, Any] = {
        **{switch: request.get(switch, False) for switch in _SWITCHES},
        "OutputDataConfig": {**_OUTPUT, **config},
        "TrainingJobStatus": "InProgress",
        "ModelArtifacts": {"S3ModelArtifacts": f"{base}/{ending}"},
        "SecondaryStatusTransitions": [],
        "StoppingCondition": request.get("StoppingCondition", DEFAULT_CONDITION),
        "_waiting": True,
        "_request": [*request],
    }
    if "InputDataConfig" in request:
        document["InputDataConfig"] = [{**_CHANNEL, **one} for one in request["InputDataConfig"]]
    to(document, "Starting", "Launching requested ML instances")
    return document


def to(document: Document, secondary: str, message: str) -> None:
    """Enter a secondary status; one that lasts only changes its message."""
    transitions = document["SecondaryStatusTransitions"]
    now = time.time()
    document["SecondaryStatus"] = secondary
    if transitions and transitions[-1]["Status"] == secondary:
        transitions[-1]["StatusMessage"] = message
        return
    if transitions:
        transitions[-1]["EndTime"] = now
    transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})


def wait(document: Document, message: str) -> None:
    """It is not the job's turn."""
    if document["_waiting"]:
        to(document, "Pending", message)


def prepare(document: Document) -> None:
    """It is the job's turn."""
    document["_waiting"] = False
    to(document, "Starting", "Preparing the instances for training")


def ask_to_stop(document: Document) -> None:
    """A client wants it to end.

    Raises:
        AwsError: It has ended.
    """
    now = document["TrainingJobStatus"]
    if now not in RUNNING:
        raise invalid(f"The request was rejected because the training job is in status {now}.")
    if now == "InProgress":
        document["TrainingJobStatus"] = "Stopping"
        to(document, "Stopping", "Stopping the training job")


def complete(document: Document) -> None:
    """The program has ended with success, and everything is stored."""
    _end(document, "Completed", "Completed", "Training job completed")


def stop(document: Document) -> None:
    """It has been stopped as a client wanted."""
    _end(document, "Stopped", "Stopped", "Training job stopped")


def exceed(document: Document) -> None:
    """Its time was over."""
    _end(
        document, "Stopped", "MaxRuntimeExceeded",
        "Training job runtime exceeded MaxRuntimeInSeconds provided",
    )  # fmt: skip


def fail(document: Document, reason: str) -> None:
    """It has failed."""
    document["FailureReason"] = reason[:1024]
    _end(document, "Failed", "Failed", "Training job failed")


def _end(document: Document, status: str, secondary: str, message: str) -> None:
    to(document, secondary, message)
    last = document["SecondaryStatusTransitions"][-1]
    last["EndTime"] = last["StartTime"]
    document.update(TrainingJobStatus=status, _waiting=False)
    if "TrainingStartTime" in document:
        seconds = max(1, round(last["EndTime"] - document["TrainingStartTime"]))
        document.update(TrainingTimeInSeconds=seconds, BillableTimeInSeconds=seconds)
    document["TrainingEndTime"] = last["EndTime"]
