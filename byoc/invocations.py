"""Asking an endpoint, and reading class scores out of its answer."""

from __future__ import annotations

import json
import math
import mimetypes
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc import settings, uploads
from byoc.errors import FailedError, InvocationError, SettingsError
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from byoc.aws import Aws
    from byoc.report import Report

JSON = "application/json"
_TYPES = {
    ".csv": "text/csv", ".json": JSON, ".jsonl": "application/jsonlines",
    ".npy": "application/x-npy", ".npz": "application/x-npz", ".txt": "text/plain",
}  # fmt: skip
#: First bytes of what has no name: of the standard input.
_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x93NUMPY", _TYPES[".npy"]),
)
#: An asynchronous request may take an hour.
ASYNC_SECONDS = 3600


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered.

    Attributes:
        body: Its bytes.
        content_type: Of the body.
        milliseconds: From the request's first byte to the answer's last.
        variant: That answered.
        custom_attributes: That the container set.
    """

    body: bytes
    content_type: str
    milliseconds: float
    variant: str = ""
    custom_attributes: str = ""

    @property
    def data(self) -> Any:
        """The body, if it is JSON; else text; else its bytes."""
        try:
            text = self.body.decode()
        except UnicodeDecodeError:
            return self.body
        if "json" in self.content_type:
            try:
                return json.loads(text)
            except ValueError:
                return text
        return text

    @property
    def scores(self) -> list[list[float]]:
        """Probabilities of classes, a row for each input; empty when the answer has none."""
        return [probabilities(row) for row in _rows(self.data)]


@dataclass(frozen=True)
class Question:
    """A request to an endpoint.

    Attributes:
        body: Its bytes.
        content_type: Of the body.
        accept: What may be answered.
        variant: That is to answer; None: by weight.
        target_model: Of a multi-model endpoint.
        custom_attributes: For the container.
        inference_id: For logs.
    """

    body: bytes
    content_type: str = JSON
    accept: str = JSON
    variant: str | None = None
    target_model: str | None = None
    custom_attributes: str | None = None
    inference_id: str | None = None

    def request(self, endpoint: str) -> dict[str, Any]:
        """As InvokeEndpoint takes it."""
        given = {
            "EndpointName": endpoint,
            "ContentType": self.content_type,
            "Accept": self.accept,
            "TargetVariant": self.variant,
            "TargetModel": self.target_model,
            "CustomAttributes": self.custom_attributes,
            "InferenceId": self.inference_id,
        }
        return {key: value for key, value in given.items() if value is not None}


def content_type_of(name: str | None, body: bytes) -> str:
    """The type that a file's name says, else its first bytes; JSON when nothing does."""
    if name:
        suffix = "." + name.rpartition(".")[2].lower()
        found = _TYPES.get(suffix) or mimetypes.guess_type(name)[0]
        if found:
            return found
    for magic, kind in _MAGIC:
        if body.startswith(magic):
            return kind
    return JSON


def invoke(aws: Aws, endpoint: str, question: Question) -> Answer:
    """Ask an endpoint.

    Raises:
        InvocationError: The model answered with an error.
        NotFoundError: There is no such endpoint, or it does not serve yet.
        ByocError: AWS refuses.
    """
    started = time.monotonic()
    request = {**question.request(endpoint), "Body": question.body}
    answer = aws.call("sagemaker-runtime", "InvokeEndpoint", request)
    if aws.dry_run:
        return Answer(b"", "", 0.0)
    try:
        body = answer["Body"].read()
    except Exception as error:
        raise aws.told(error, "sagemaker-runtime:InvokeEndpoint") from error
    return Answer(
        body,
        str(answer.get("ContentType", "")),
        1000 * (time.monotonic() - started),
        str(answer.get("InvokedProductionVariant", "")),
        str(answer.get("CustomAttributes", "")),
    )


def stream(aws: Aws, endpoint: str, question: Question) -> Iterator[bytes]:
    """Ask an endpoint, and get its answer piece by piece.

    Raises:
        InvocationError: The model answered with an error, or broke off.
        ByocError: AWS refuses.
    """
    request = {**question.request(endpoint), "Body": question.body}
    answer = aws.call("sagemaker-runtime", "InvokeEndpointWithResponseStream", request)
    if aws.dry_run:
        return
    try:
        for event in answer["Body"]:
            if "PayloadPart" in event:
                yield event["PayloadPart"]["Bytes"]
            else:
                ((name, details),) = event.items()
                raise InvocationError(  # noqa: TRY301 - told as it is, below
                    f"the stream broke off: {name}: {details.get('Message', '')}"
                )
    except InvocationError:
        raise
    except Exception as error:
        raise aws.told(error, "sagemaker-runtime:InvokeEndpointWithResponseStream") from error


def invoke_async(
    aws: Aws,
    endpoint: str,
    question: Question,
    *,
    bucket: str | None = None,
    may_create: Callable[[str], bool] = lambda _: False,
    seconds: float = ASYNC_SECONDS,
    report: Report = SILENT,
) -> Answer:
    """Ask an asynchronous endpoint: the request goes to S3, and its answer is waited for there.

    Raises:
        InvocationError: The model answered with an error.
        FailedError: No answer came in time.
        ByocError: AWS refuses.
    """
    started = time.monotonic()
    bucket = settings.bucket(aws, bucket, may_create=may_create, report=report)
    key = f"{uploads.PREFIX}/async-input/{endpoint}/{uuid.uuid4()}"
    aws.call("s3", "PutObject", {"Bucket": bucket, "Key": key, "Body": question.body})
    request = question.request(endpoint)
    request.pop("TargetModel", None)
    request["InputLocation"] = f"s3://{bucket}/{key}"
    answer = aws.call("sagemaker-runtime", "InvokeEndpointAsync", request)
    if aws.dry_run:
        return Answer(b"", "", 0.0)
    places = [(answer["OutputLocation"], True), (answer.get("FailureLocation"), False)]
    report.say(f"the answer will be in {answer['OutputLocation']}")
    while (waited := time.monotonic() - started) < seconds:
        for address, good in places:
            body, kind = _object(aws, address) if address else (None, "")
            if body is None:
                continue
            if not good:
                text = " ".join(body.decode("utf-8", "replace").split())
                raise InvocationError(f"the model answered with an error: {text[:600]}")
            return Answer(body, kind or question.accept, 1000 * waited)
        report.waiting(f"answer of {endpoint}: {waited:.0f} s")
        time.sleep(0.2 if aws.local else 2.0)
    raise FailedError(f"no answer within {seconds:.0f} s; it may still come to {places[0][0]}")


def probabilities(row: Sequence[float]) -> list[float]:
    """Class scores as probabilities: they may be those already, their logarithms, or logits."""
    total = sum(row)
    if min(row) >= 0 and abs(total - 1) < 1e-2:
        return [*row]
    top = max(row)
    raised = [math.exp(value - top) for value in row]
    return [value / sum(raised) for value in raised]


def _rows(data: Any) -> list[list[float]]:
    """``[K]`` or ``[N, K]`` numbers with K > 1, as rows."""
    if isinstance(data, dict) and len(data) == 1:  # {"predictions": […]}
        data = next(iter(data.values()))
    if not isinstance(data, list) or not data:
        return []
    rows = data if isinstance(data[0], list) else [data]
    for row in rows:
        if not isinstance(row, list) or len(row) < 2 or len(row) != len(rows[0]):
            return []
        if not all(
            isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one)
            for one in row
        ):
            return []
    return rows


def _object(aws: Aws, address: str) -> tuple[bytes | None, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    found = aws.find("s3", "GetObject", {"Bucket": bucket, "Key": key})
    if found is None:
        return None, ""
    try:
        return found["Body"].read(), str(found.get("ContentType", ""))
    except Exception as error:
        raise aws.told(error, "s3:GetObject") from error


def read_body(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        SettingsError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
