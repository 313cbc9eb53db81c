"""Training jobs whose programs do what a test says, and the calls that start them."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path
from typing import Any

import pytest

from byoc.local.host_processes import namespaces
from tests.local.conftest import ROLE, Endpoint, eventually

BUCKET = "training-bucket"
NUMBERS = itertools.count(1)
#: What every program begins with.
HEAD = """
import json, os, pathlib, signal, sys, time
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
root = model.parent
host = os.environ["SM_CURRENT_HOST"]
data = root / "input" / "data"
"""
OUTPUT = f"s3://{BUCKET}/out"

own_mounts = pytest.mark.skipif(
    not namespaces(), reason="/opt/ml in a namespace of its own needs root"
)


class Jobs:
    """Training jobs of one endpoint."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.sagemaker, self.s3 = endpoint.client("sagemaker"), endpoint.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)

    def request(self, program: str, **changes: Any) -> dict[str, Any]:
        name = f"job-{next(NUMBERS)}"
        code = self.folder / name
        code.mkdir()
        (code / "main.py").write_text(HEAD + program)
        parameters = {"sagemaker_program": "main.py", "sagemaker_submit_directory": str(code)}
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1",
                "TrainingInputMode": "File",
            },
            "OutputDataConfig": {"S3OutputPath": OUTPUT},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        specification = {**request["AlgorithmSpecification"], **changes.pop("algorithm", {})}
        request["AlgorithmSpecification"] = specification
        request["HyperParameters"] = {**parameters, **changes.pop("HyperParameters", {})}
        return {**request, **changes}

    def start(self, program: str, **changes: Any) -> str:
        request = self.request(program, **changes)
        self.sagemaker.create_training_job(**request)
        name: str = request["TrainingJobName"]
        return name

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def wait(self, name: str, status: str | None = None, seconds: float = 30) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = self.describe(name)
            return None if found["TrainingJobStatus"] in ("InProgress", "Stopping") else found

        found: dict[str, Any] = eventually(ended, seconds)
        if status is not None:
            told = (found["TrainingJobStatus"], found.get("FailureReason"), self.log(name))
            assert found["TrainingJobStatus"] == status, told
        return found

    def run(self, program: str, status: str | None = "Completed", **changes: Any) -> dict[str, Any]:
        return self.wait(self.start(program, **changes), status)

    def put(self, **objects: bytes | str) -> None:
        for name, content in objects.items():
            body = content.encode() if isinstance(content, str) else content
            self.s3.put_object(Bucket=BUCKET, Key=name, Body=body)

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [one["Key"].removeprefix(prefix) for one in found]

    def archive(self, name: str, file: str) -> dict[str, str]:
        body = self.s3.get_object(Bucket=BUCKET, Key=f"out/{name}/output/{file}")["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
            found = {}
            for member in tar.getmembers():
                if member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = content.read().decode()
            return found

    def log(self, name: str, host: str = "algo-1") -> list[str]:
        logs = self.endpoint.client("logs")
        group = "/aws/sagemaker/TrainingJobs"
        try:
            streams = logs.describe_log_streams(
                logGroupName=group, logStreamNamePrefix=f"{name}/{host}"
            )
        except logs.exceptions.ResourceNotFoundException:
            return []  # nothing has been said yet
        if not streams["logStreams"]:
            return []
        stream = streams["logStreams"][0]["logStreamName"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)
        return [event["message"] for event in events["events"]]

    def said(self, name: str, words: str) -> None:
        eventually(lambda: words in self.log(name))


def gone(pid: int) -> bool:
    """Whether a process has ended; its new parent may not have heard of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def channel(uri: str, name: str = "training", **changes: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, **changes.pop("source", {})}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **changes}


def transitions(found: dict[str, Any]) -> list[str]:
    return [one["Status"] for one in found["SecondaryStatusTransitions"]]


LIST = "print(sorted(p.relative_to(data).as_posix() for p in data.rglob('*') if p.is_file()))"


WAITS = (
    "def stop(*_):\n"
    "    (model / 'partial').write_text('p'); print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "print('ready', flush=True)\n"
    "time.sleep(100)\n"
)
