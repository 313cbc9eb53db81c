"""Training jobs: the request, its start, and its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import hosts, kinds, metrics, settings, uploads, words
from byoc.errors import FailedError, SettingsError
from byoc.logs import Logs
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from byoc.aws import Aws
    from byoc.kinds import Kind
    from byoc.report import Report

IMAGE = "sagemaker-byoc-training:latest"
INSTANCE_TYPE = "ml.m5.xlarge"
#: Between two looks at a job: of this machine, of AWS.
LOCAL_SECONDS, AWS_SECONDS = 0.25, 5.0
#: Spot capacity is waited for as long again as the job may run.
_SPOT_FACTOR = 2


@dataclass(frozen=True)
class Training:
    """A training job to be.

    Attributes:
        data: By channel: a folder or file here, or ``s3://…``.
        hyperparameters: Values of any type that JSON has; see `words.hyperparameters`.
        raw_hyperparameters: Text that is sent as it is.
        name: Default: one that is not taken.
        image: A full name, or one in this account's registry.
        role: An ARN or a name; found when None.
        bucket: For data and the model; found when None.
        instance_type: Such as ``ml.g5.xlarge``.
        instance_count: Hosts.
        volume_gb: The disk of each.
        max_seconds: The longest that it may run.
        spot: On spare capacity, for at most twice ``max_seconds`` with the wait.
        checkpoints: ``s3://…`` that ``/opt/ml/checkpoints`` is kept in; ``auto``: in the bucket.
        environment: Variables of the container.
        metric_names: What the program logs.
        output: ``s3://…`` for the model; default: in the bucket.
        input_mode: ``File`` or ``FastFile``.
        tags: Of AWS.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    raw_hyperparameters: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    image: str = IMAGE
    role: str | None = None
    bucket: str | None = None
    instance_type: str = INSTANCE_TYPE
    instance_count: int = 1
    volume_gb: int = 30
    max_seconds: int = 86400
    spot: bool = False
    checkpoints: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    metric_names: Sequence[str] = metrics.EXAMPLE_METRICS
    output: str | None = None
    input_mode: str = "File"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingJob:
    """A training job that has been started.

    Attributes:
        name: Its own.
        arn: Its resource name; empty when nothing was sent.
        request: As it was sent.
    """

    name: str
    arn: str
    request: dict[str, Any]


def train(
    aws: Aws,
    training: Training,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> TrainingJob:
    """Upload the data and start a training job; `wait` waits for it.

    Args:
        aws: Where.
        training: What.
        may_create: Asked whether the account's default bucket may be made.
        report: Shows the upload.

    Raises:
        CombinationError: The image has no program for that instance.
        SettingsError: Something is wrong or missing.
        ByocError: AWS refuses.
    """
    hosts.check(training.instance_type, None)
    hosts.known(training.instance_type, "training")
    name = words.checked_name(training.name or words.fresh_name(_stem(training.image)))
    sources = {channel: _source(channel, text) for channel, text in training.data.items()}
    definitions = metrics.metric_definitions(training.metric_names)
    typed = words.hyperparameters(training.hyperparameters)
    hyperparameters = {**typed, **training.raw_hyperparameters}
    role, image = settings.role(aws, training.role), aws.image_uri(training.image)
    needs_bucket = (
        training.output is None
        or training.checkpoints == "auto"
        or any(isinstance(source, Path) for source in sources.values())
    )
    bucket = ""
    if needs_bucket:
        bucket = settings.bucket(aws, training.bucket, may_create=may_create, report=report)
    uris = {
        channel: source
        if isinstance(source, str)
        else uploads.upload(aws, source, bucket, "data", title=f"channel {channel}", report=report)
        for channel, source in sources.items()
    }
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": image,
            "TrainingInputMode": training.input_mode,
        },
        "RoleArn": role,
        "OutputDataConfig": {
            "S3OutputPath": training.output or f"s3://{bucket}/{uploads.PREFIX}/jobs"
        },
        "ResourceConfig": {
            "InstanceType": training.instance_type,
            "InstanceCount": training.instance_count,
            "VolumeSizeInGB": training.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": training.max_seconds},
    }
    if definitions:
        request["AlgorithmSpecification"]["MetricDefinitions"] = definitions
    if hyperparameters:
        request["HyperParameters"] = hyperparameters
    if uris:
        request["InputDataConfig"] = [_channel(*one) for one in uris.items()]
    if training.environment:
        request["Environment"] = dict(training.environment)
    if training.checkpoints:
        uri = f"s3://{bucket}/{uploads.PREFIX}/checkpoints/{name}"
        uri = training.checkpoints if training.checkpoints != "auto" else uri
        request["CheckpointConfig"] = {"S3Uri": uri}
    if training.spot:
        request["EnableManagedSpotTraining"] = True
        wait = _SPOT_FACTOR * training.max_seconds
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = wait
    if training.tags:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in training.tags.items()]
    answer = aws.call("sagemaker", "CreateTrainingJob", request)
    return TrainingJob(name, answer.get("TrainingJobArn", ""), request)


def wait(
    aws: Aws, kind: Kind, name: str, *, logs: bool = True, report: Report = SILENT
) -> dict[str, Any]:
    """Wait for the end of a job, and tell its states and its log meanwhile.

    Args:
        aws: Where.
        kind: Of the job.
        name: Of the job.
        logs: Whether its log is told as well.
        report: Is told.

    Returns:
        What the API says of the job that has completed.

    Raises:
        FailedError: It failed, or was stopped; says the reason.
        ByocError: AWS refuses.
    """
    reader = Logs(aws, kind, name) if logs else None
    started, seen, last = time.monotonic(), 0, ""
    while True:
        job = kinds.describe(aws, kind, name)
        status = str(job[kind.status or ""])
        seconds = time.monotonic() - started
        if reader:
            tell(reader, report)
        states = _states(job, status)
        # Jobs without a history have one state at any time: another takes its place.
        for state, message in states[seen:] or states[-1:]:
            if state != last:
                report.say(f"{state:<12} {seconds:6.1f} s  {message}".rstrip())
            last = state
        seen, state = len(states), last
        if status in kinds.ENDED:
            return _ended(kind, name, job)
        report.waiting(f"{kind.words} {name}: {state}, {seconds:.0f} s")
        time.sleep(LOCAL_SECONDS if aws.local else AWS_SECONDS)


def tell(reader: Logs, report: Report) -> None:
    """Tell the new lines; with their stream's name where there are several."""
    lines = list(reader.new())
    for line in lines:
        report.log(f"{line.stream}  {line.text}" if reader.streams > 1 else line.text)


def _ended(kind: Kind, name: str, job: dict[str, Any]) -> dict[str, Any]:
    status = str(job[kind.status or ""])
    if status == "Completed":
        return job
    if status == "Stopped":
        if kind is kinds.PROCESSING:  # which says the same of both
            raise FailedError(f"the {kind.words} {name} was stopped, or ran longer than --max-time")
        limit = job.get("SecondaryStatus") in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded")
        why = "it took longer than it may (--max-time)" if limit else "somebody stopped it"
        raise FailedError(f"the {kind.words} {name} was stopped: {why}")
    reason = " ".join(str(job.get("FailureReason") or job.get("ExitMessage") or "").split())
    raise FailedError(
        f"the {kind.words} {name} failed: {reason or 'no reason is given'}; its log: "
        f"{kind.command('logs', name)}"
    )


def _states(job: dict[str, Any], status: str) -> list[tuple[str, str]]:
    """The states that a job has been in, each with a message: training jobs keep a history."""
    history = [
        (str(one["Status"]), " ".join(str(one.get("StatusMessage", "")).split()))
        for one in job.get("SecondaryStatusTransitions") or ()
    ]
    state = str(job.get("SecondaryStatus", status))
    if not history or history[-1][0] != state:
        history.append((state, ""))
    return history


def _stem(image: str) -> str:
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _source(channel: str, text: str) -> str | Path:
    """An address in S3, or a folder or file that is there.

    Raises:
        SettingsError: It is neither.
    """
    if text.startswith("s3://"):
        return text
    path = Path(text).expanduser()
    if not path.exists():
        raise SettingsError(
            f"the data for channel {channel} is not there: {path}; give a folder, a file or s3://…"
        )
    uploads.files(path)
    return path


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {
        "S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"
    }  # fmt: skip
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}
