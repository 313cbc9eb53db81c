"""What the programs of SDK v3's user share: a role, digits, and the last line."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tarfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.exceptions import ClientError
    from sagemaker.core.helper.session_helper import Session

#: The endpoint's own; the SDK asks IAM whether it is there and suffices.
ROLE = "arn:aws:iam::123456789012:role/byoc-local"
INSTANCE = "ml.m5.large"


def listed(session: Session, uri: str) -> list[str]:
    """The files in an archive that lies in S3."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = session.s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
        return sorted(one.name for one in archive.getmembers() if one.isfile())


def log_of(session: Session, job: str, host: str = "algo-1") -> list[str]:
    """What a host of a training job has said, from CloudWatch."""
    logs = session.boto_session.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    try:
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/{host}")
    except logs.exceptions.ResourceNotFoundException:
        return []
    if not streams["logStreams"]:
        return []
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=group,
        logStreamNames=[one["logStreamName"] for one in streams["logStreams"]],
    )
    return [event["message"] for page in pages for event in page["events"]]


def tell(**found: Any) -> None:
    """The last line."""
    print(f"\n{json.dumps(found, default=str)}", flush=True)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it; so many seconds are too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """What the SDK logs within: by itself it shows nothing, logging is the application's."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())  # type: ignore[method-assign]
    logger = logging.getLogger("sagemaker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)


def code_of(error: ClientError) -> str:
    """What AWS calls an error."""
    code: str = error.response["Error"]["Code"]
    return code
