"""What the local endpoint adds to a training job, beside the same container run by hand.

    PYTHONPATH=.:serving .venv/bin/python -m benchmarks.local_jobs --rounds 5

Goal: at most 2 s more. Both sides run a program that does nothing in the same image, write a model
of one file and pack it. By hand: ``docker run`` on a folder made ready, from its start to
``model.tar.gz``; through the endpoint: from ``CreateTrainingJob`` to ``Completed``, with the
channel and the program fetched from S3 and the archive put there. They take turns.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.local import ROLE, client, running
from benchmarks.serving import machine
from byoc.local.layout import TrainingLayout
from byoc.local.runners.docker import DockerRunner
from byoc.packaging import pack

GOAL_S = 2.0
BUCKET, IMAGE = "jobs", "sagemaker-byoc-training:latest"
PROGRAM = (
    "import os, pathlib\npathlib.Path(os.environ['SM_MODEL_DIR'], 'weights').write_text('none')\n"
)
#: What both sides give the program.
CHANNEL_BYTES = 1_000_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--output", type=Path)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="byoc-local-jobs-") as folder:
        found = measure(Path(folder), chosen.rounds)
    print(json.dumps(found, indent=2))
    if chosen.output:
        chosen.output.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(met for _, _, met in found["goals"].values()) else 1)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    code, channel = folder / "code", folder / "channel"
    for made in (code, channel):
        made.mkdir()
    (code / "nothing.py").write_text(PROGRAM)
    (channel / "bytes").write_bytes(os.urandom(CHANNEL_BYTES))
    by_hand, through = [], []
    with running(folder / "home", "docker") as (url, _):
        ready(url, code, channel)
        for number in range(rounds):
            by_hand.append(alone(folder / f"root-{number}", code, channel))
            through.append(job(url, f"nothing-{number}"))
    overhead = statistics.median(through) - statistics.median(by_hand)
    return {
        **machine.describe(),
        "load": os.getloadavg(),
        "by_hand_s": [round(seconds, 3) for seconds in by_hand],
        "endpoint_s": [round(seconds, 3) for seconds in through],
        "goals": {"overhead_s": [round(overhead, 3), GOAL_S, overhead <= GOAL_S]},
    }


def alone(root: Path, code: Path, channel: Path) -> float:
    """The container by hand; seconds."""
    layout = TrainingLayout(root, {}, {"training": channel, "code": code})
    layout.create()
    runner = DockerRunner(IMAGE, "")
    program = {
        "SAGEMAKER_PROGRAM": "nothing.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/input/data/code",
    }
    begun = time.monotonic()
    lines: list[str] = []
    ended = runner.train(layout, program, lines.append).wait()
    assert ended == 0, lines
    pack(layout.model, root / "model.tar.gz")
    return time.monotonic() - begun


def ready(url: str, code: Path, channel: Path) -> None:
    """Put both sides' files into S3."""
    s3 = client("s3", url)
    s3.create_bucket(Bucket=BUCKET)
    s3.upload_file(str(channel / "bytes"), BUCKET, "channel/bytes")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(code / "nothing.py", "nothing.py")
    s3.put_object(Bucket=BUCKET, Key="sourcedir.tar.gz", Body=packed.getvalue())


def job(url: str, name: str) -> float:
    """The same as a training job; seconds."""
    sagemaker = client("sagemaker", url)
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/channel"}
    begun = time.monotonic()
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={
            "sagemaker_program": '"nothing.py"',
            "sagemaker_submit_directory": f'"s3://{BUCKET}/sourcedir.tar.gz"',
        },
        InputDataConfig=[{"ChannelName": "training", "DataSource": {"S3DataSource": source}}],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    while True:
        found = sagemaker.describe_training_job(TrainingJobName=name)
        if found["TrainingJobStatus"] != "InProgress":
            break
        time.sleep(0.02)
    assert found["TrainingJobStatus"] == "Completed", found.get("FailureReason")
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
