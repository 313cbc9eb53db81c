"""``serve --check``: load the model as the server would, try a sample, say how it went."""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from byoc_serving.chunks import Chunks
from byoc_serving.engine import Engine
from byoc_serving.exchange import Invocation, Response, one_line
from byoc_serving.machine import Machine
from byoc_serving.sample import TYPES, Sample

if TYPE_CHECKING:
    from pathlib import Path

    from byoc_serving.arguments import Arguments
    from byoc_serving.settings import Settings

#: Passes after the first one, whose median is reported.
WARM_RUNS = 5
_SHOWN = 200


@dataclass(frozen=True)
class Report:
    """What the check has found; None where there was no sample, or no second answer.

    Attributes:
        model: the model directory.
        handler: where its functions come from.
        device: ``cpu`` or ``cuda:0``.
        torch: its version.
        load_s: seconds from nothing to a loaded model, torch's import included.
        sample: the file that was tried.
        status: the answer's HTTP status.
        first_ms: how long the first answer took.
        warm_ms: the median of those after it.
        content_type: the answer's type.
        answer: the beginning of its body, or how long it is.
    """

    model: str
    handler: str
    device: str
    torch: str
    load_s: float
    sample: str | None = None
    status: int | None = None
    first_ms: float | None = None
    warm_ms: float | None = None
    content_type: str | None = None
    answer: str | None = None

    @property
    def good(self) -> bool:
        """Whether the model has loaded, and the sample, if any, was answered well."""
        return self.status is None or self.status < 400

    def lines(self) -> list[str]:
        """The report for people."""
        told = [
            f"model    {self.model}",
            f"handler  {self.handler}",
            f"device   {self.device}, torch {self.torch}",
            f"loaded   in {self.load_s:.2f} s",
        ]
        if self.sample is None:
            names = ", ".join(f"sample{suffix}" for suffix in TYPES)
            told.append(
                f"sample   none, so nothing was predicted; put one of {names} into code/, or name "
                "one with --sample"
            )
            return told
        warm = f", then {self.warm_ms:.2f} ms" if self.warm_ms is not None else ""
        return [
            *told,
            f"sample   {self.sample}",
            f"answer   {self.status} {self.content_type} in {self.first_ms:.2f} ms{warm}",
            f"         {self.answer}",
        ]


def run(settings: Settings, arguments: Arguments, workspace: Path) -> int:
    """Check, and print the report; 0, or 1 when the sample failed.

    Raises:
        StartError: the model does not load, or the sample cannot be read.
    """
    sample = (
        Sample.read(arguments.sample, arguments.content_type)
        if arguments.sample is not None
        else Sample.find(settings.model_dir)
    )
    gpus = Machine.look(os.environ).gpus
    began = time.monotonic()
    engine = Engine(settings, workspace, gpus[0] if gpus else None)
    engine.load()
    known: dict[str, Any] = {
        "model": str(settings.model_dir),
        "handler": engine.handler.origin,
        "device": engine.device,
        "torch": metadata.version("torch"),
        "load_s": round(time.monotonic() - began, 3),
    }
    if sample is not None:
        kind = arguments.content_type or sample.content_type
        known |= _try(engine, sample, kind, arguments.accept)
    report = Report(**known)
    print(json.dumps(asdict(report)) if arguments.as_json else "\n".join(report.lines()))
    return 0 if report.good else 1


def _try(engine: Engine, sample: Sample, content_type: str, accept: str) -> dict[str, Any]:
    """The sample through all functions, once and then a few times more."""
    response, first_s = _ask(engine, sample.body, content_type, accept)
    found: dict[str, Any] = {
        "sample": str(sample.path),
        "status": response.status,
        "first_ms": round(first_s * 1e3, 3),
        "content_type": response.content_type,
        "answer": _summary(response),
    }
    if response.status < 400:
        times = [_ask(engine, sample.body, content_type, accept)[1] for _ in range(WARM_RUNS)]
        found["warm_ms"] = round(statistics.median(times) * 1e3, 3)
    return found


def _ask(engine: Engine, body: bytes, content_type: str, accept: str) -> tuple[Response, float]:
    headers = [(b"content-type", content_type.encode("latin-1", "replace"))]
    if accept:
        headers.append((b"accept", accept.encode("latin-1", "replace")))
    invocation = Invocation.from_headers(headers)
    invocation.body = body
    invocation.size_bytes = len(body)
    began = time.monotonic()
    (response,) = engine.run([invocation])
    response = _whole(response)
    return response, time.monotonic() - began


def _whole(response: Response) -> Response:
    """A response with all of its body, also where that is a stream."""
    if response.stream is None:
        return response
    chunks, body = Chunks(response.stream, None), bytearray()
    head = replace(chunks.head(), stream=None)
    if response.stream.whole:
        return head
    try:
        for chunk in chunks:
            body += chunk
    except BrokenPipeError:
        # A client sees 200 and a body that breaks off; here it is what it is, a failure.
        return replace(head, status=500, body=bytes(body))
    return replace(head, body=bytes(body))


def _summary(response: Response) -> str:
    try:
        text = response.body.decode("utf-8")
    except UnicodeDecodeError:
        return f"{len(response.body)} bytes"
    return one_line(text, _SHOWN)
