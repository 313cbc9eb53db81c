"""Programs that tell MLflow of their training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


#: Far more than anything here may take, far less than MLflow's own time-outs.
DEADLINE_SECONDS = 90.0
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/team"

PROGRAM = """
import sys
from byoc_training.tracker import Tracker

with Tracker("epoch") as tracker:
    for epoch in range(1, 4):
        tracker.log({"loss": 1 / epoch, "odd": float("nan")}, step=epoch)
    tracker.log_model(sys.argv[1])
    print("told", "mlflow" in sys.modules, flush=True)
"""


@dataclass
class Job:
    """A program that tells its metrics, and its directories."""

    root: Path

    def environment(self, uri: str, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": uri,
            "SM_OUTPUT_DATA_DIR": str(self.root / "output"),
            "SM_INPUT_CONFIG_DIR": str(self.root / "config"),
            "SM_CHECKPOINT_DIR": str(self.root / "checkpoints"),
            "TRAINING_JOB_NAME": "digits-1",
            "SM_USER_ENTRY_POINT": "train.py",
            "SM_HPS": json.dumps({"lr": 0.5, "layers": [1, 2], "name": "adam", "odd!": "x"}),
            "BYOC_IMAGE_DIGEST": "sha256:abc",
            "BYOC_SYSTEM_METRICS_SECONDS": "3600",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **more,
        }

    def command(self, program: str = PROGRAM) -> list[str]:
        return [sys.executable, "-c", program, str(self.root / "model")]

    def run(self, uri: str, program: str = PROGRAM, **more: str) -> list[str]:
        done = subprocess.run(
            self.command(program),
            env=self.environment(uri, **more),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def talk(self, uri: str, program: str, until: str) -> list[str]:
        """Run a program that waits, after its first words, until a line has been said."""
        process = subprocess.Popen(
            self.command(program),
            env=self.environment(uri),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A signal to the program's group is none to the tests.
            start_new_session=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line.strip())
                if until in line:
                    process.stdin.write("\n")
                    process.stdin.flush()
        assert process.returncode == 0
        return said


TOLD = [
    "epoch=1; loss=1; odd=nan;",
    "epoch=2; loss=0.5; odd=nan;",
    "epoch=3; loss=0.333333; odd=nan;",
    "told False",
]


def prepared(root: Path) -> Job:
    """A job whose directories are there, with a model."""
    for name in ("model/code", "checkpoints", "config"):
        (root / name).mkdir(parents=True)
    (root / "model" / "model.pth").write_bytes(b"weights")
    (root / "model" / "code" / "inference.py").write_text("x = 1\n")
    return Job(root)
