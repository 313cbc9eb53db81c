"""Models whose handler does what the request says, and the calls that host them."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.local.conftest import ROLE, Endpoint, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKET = "models"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/served:1"
#: Every action of SageMaker that the endpoint has; the README says so in words.
ACTIONS = (
    *(f"{verb}TrainingJob" for verb in ("Create", "Describe", "Stop", "Delete")),
    *(f"{verb}ProcessingJob" for verb in ("Create", "Describe", "Stop", "Delete")),
    *(f"{verb}TransformJob" for verb in ("Create", "Describe", "Stop")),
    *(f"{verb}Model" for verb in ("Create", "Describe", "Delete")),
    *(f"{verb}EndpointConfig" for verb in ("Create", "Describe", "Delete")),
    *(f"{verb}Endpoint" for verb in ("Create", "Describe", "Update", "Delete")),
    "UpdateEndpointWeightsAndCapacities",
    *(f"List{kind}Jobs" for kind in ("Training", "Processing", "Transform")),
    *("ListModels", "ListEndpointConfigs", "ListEndpoints"),
    *("AddTags", "ListTags", "DeleteTags"),
)
#: No torch in it; `serve` itself takes seconds to import it, so tests share endpoints.
HANDLER = """
import json, os, pathlib, time

def model_fn(model_dir):
    folder = pathlib.Path(model_dir)
    if (folder / "broken").exists():
        raise ValueError("these weights are broken")
    return {"version": (folder / "version").read_text(), "folder": folder}

def input_fn(body, content_type):
    return json.loads(body) if content_type == "application/json" else {"upper": body}

def stream(ask):
    for number in range(ask["stream"]):
        yield f"part {number};".encode()
    if "gate" in ask:
        while not pathlib.Path(ask["gate"]).exists():
            time.sleep(0.01)
        yield b"after the gate"
    if ask.get("break"):
        raise ValueError("told to break")

def predict_fn(ask, model, context):
    if "upper" in ask:
        text = ask["upper"]
        text = text if isinstance(text, str) else text.decode()
        flaky = pathlib.Path(os.environ.get("FLAKY", "/nonexistent"))
        if "flaky" in text and not flaky.exists():
            flaky.write_text("once")
            raise RuntimeError("told to fail once")
        if "wrong" in text:
            context.set_response_status(400)
        if "slow" in text:
            time.sleep(20)
        context.set_response_content_type(0, "text/csv")
        return text.upper().encode()
    if "sleep" in ask:
        time.sleep(ask["sleep"])
    if "stream" in ask:
        return stream(ask)
    if "status" in ask:
        context.set_response_status(ask["status"])
        return ask["words"]
    if "fail" in ask:
        raise RuntimeError(ask["fail"])
    if "attributes" in ask:
        context.custom_attributes = ask["attributes"]
    if "write" in ask:
        (model["folder"] / "written").write_text("x")
    return {
        "version": model["version"],
        "root": os.environ["BYOC_ROOT"],
        "headers": context.get_all_request_header(0),
        "given": os.environ.get("GIVEN"),
        "region": os.environ.get("AWS_REGION"),
        "mode": oct(model["folder"].stat().st_mode),
    }

def output_fn(prediction, accept):
    return prediction if isinstance(prediction, bytes) or hasattr(prediction, "__next__") else (
        json.dumps(prediction).encode(), "application/json")
"""


def archive(files: Mapping[str, str]) -> bytes:
    """A ``model.tar.gz``."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
    return packed.getvalue()


def files(version: str, **more: str) -> dict[str, str]:
    """Those of a model."""
    return {"code/inference.py": HANDLER, "version": version, **more}


@dataclass
class Hosted:
    """Clients of one server, and what tests do with them."""

    server: Endpoint

    def __post_init__(self) -> None:
        self.s3, self.sagemaker, self.runtime, self.logs = (
            self.server.client(name) for name in ("s3", "sagemaker", "sagemaker-runtime", "logs")
        )

    def put(self, key: str, content: bytes | str) -> str:
        """Store an object; its URI."""
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"

    def model(self, name: str, **container: Any) -> None:
        """Create a model; its archive holds the handler and its name as version."""
        if not {"ModelDataUrl", "ModelDataSource"} & set(container):
            container["ModelDataUrl"] = self.put(f"{name}/model.tar.gz", archive(files(name)))
        self.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={"Image": IMAGE, **container},
            ExecutionRoleArn=ROLE,
        )

    def config(self, name: str, *models: str, weights: tuple[float, ...] = (), **more: Any) -> None:
        """Create a configuration with one variant for each model, of the model's name."""
        count = more.pop("count", 1)
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": model,
                    "ModelName": model,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": count,
                    "InitialVariantWeight": weight,
                }
                for model, weight in zip(models, weights or (1.0,) * len(models), strict=True)
            ],
            **more,
        )

    def create(self, name: str, config: str) -> dict[str, Any]:
        """Create an endpoint, and wait until it serves."""
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return self.settled(name)

    def settled(self, name: str, status: str = "InService") -> dict[str, Any]:
        """Wait until nothing is being done to it; its description."""

        def found() -> dict[str, Any] | None:
            description: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
            return None if description["EndpointStatus"].endswith("ing") else description

        description: dict[str, Any] = eventually(found, 90)
        assert description["EndpointStatus"] == status, description
        return description

    def ask(self, name: str, ask: Any = None, **more: Any) -> Any:
        """The JSON of an answer."""
        answer = self.runtime.invoke_endpoint(
            EndpointName=name,
            Body=json.dumps(ask or {}),
            ContentType="application/json",
            **more,
        )
        return json.loads(answer["Body"].read())

    def error(self, call: Any, *arguments: Any, **words: Any) -> dict[str, Any]:
        """What a call that must fail is told."""
        from botocore.exceptions import ClientError

        try:
            answer = call(*arguments, **words)
        except ClientError as error:
            return {**error.response, **error.response["Error"]}
        raise AssertionError(f"no error, but {answer}")

    def log_lines(self, group: str) -> str:
        """All events of all streams."""
        lines = []
        for stream in self.logs.describe_log_streams(logGroupName=group)["logStreams"]:
            events = self.logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"]
            )["events"]
            lines += [event["message"] for event in events]
        return "\n".join(lines)


def processes(root: Path | str) -> list[int]:
    """Processes that serve from below a folder."""
    wanted = f"BYOC_ROOT={root}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def kill(root: Path | str) -> None:
    """SIGKILL to all that serves from a folder."""
    for process in processes(root):
        os.kill(process, signal.SIGKILL)
    until = time.monotonic() + 10
    while processes(root):
        assert time.monotonic() < until
        time.sleep(0.01)


def one_and_two(server: Endpoint) -> Hosted:
    """Models ``one`` and ``two``, and a configuration of each."""
    made = Hosted(server)
    for name in ("one", "two"):
        made.model(name, Environment={"GIVEN": f"to {name}"})
        made.config(name, name)
    return made
