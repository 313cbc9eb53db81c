"""A process beside the program that talks to MLflow, and the pipe to it.

Importing MLflow's client takes seconds and tens of megabytes, and its calls wait for a server that
may be slow, or gone. In a process of its own all of this happens beside the training, which never
waits: what the pipe does not take at once waits here, up to a limit. See `mlflow_worker` for what
the process does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Beyond it, lines are dropped: the process is stopped or starved, and the files have everything.
MOST_WAITING_BYTES = 32 * 2**20
_WORKER = "from byoc_training.mlflow_worker import main; main()"


class MlflowLink:
    """Hands things to the process.

    Args:
        start: Its first message: parameters, tags, names (see `mlflow_worker.Run`).
    """

    def __init__(self, start: Mapping[str, Any]) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        # Isolated: the user's source, which is first on PYTHONPATH, may have modules of any name.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _WORKER], stdin=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin is not None  # noqa: S101 - tells the type checker what PIPE means
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self.send("start", **start)

    def send(self, kind: str, **content: Any) -> None:
        """Hand over a message; never waits."""
        line = json.dumps({"kind": kind, **content}).encode() + b"\n"
        with self._lock:
            if self._waiting_bytes + len(line) > MOST_WAITING_BYTES:
                self._dropped += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            self._pump()

    def close(self, status: str, seconds: float) -> str:
        """Say that it is the end, and wait until all has been handed to the server.

        Args:
            status: MLflow's word for how the run ended.
            seconds: After which the process is killed.

        Returns:
            What is missing, in one line; empty when the process has had its say.
        """
        until = time.monotonic() + seconds
        self.send("end", status=status)
        while self._waiting and time.monotonic() < until:
            select.select([], [self._pipe], [], max(0.0, until - time.monotonic()))
            self._pump()
        assert self._process.stdin is not None  # noqa: S101 - as above
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"MLflow has not taken everything within {seconds:g} s"
        return f"{self._dropped} messages did not reach MLflow" if self._dropped else ""

    def _pump(self) -> None:
        """Write what the pipe takes. When nobody reads any more, the process has said why."""
        while self._waiting:
            line = self._waiting.popleft()
            try:
                written = os.write(self._pipe, line)
            except BlockingIOError:
                written = 0
            except OSError:
                self._waiting.clear()
                self._waiting_bytes = 0
                return
            self._waiting_bytes -= written
            if written < len(line):
                self._waiting.appendleft(line[written:])
                return


def first_message(environ: Mapping[str, str]) -> dict[str, Any]:
    """What a job says about itself, for `mlflow_worker.Run`.

    The image is named by ``BYOC_IMAGE_DIGEST``, which whoever starts the job sets: no image can
    hold its own digest. The platform's ``trainingjobconfig.json`` (observed, undocumented) names
    the image as the request did.
    """
    job = environ.get("TRAINING_JOB_NAME") or environ.get("SAGEMAKER_JOB_NAME") or ""
    image = _image_of_request(environ)
    digest = environ.get("BYOC_IMAGE_DIGEST") or (image.partition("@")[2] if "@" in image else "")
    tags = {
        "byoc.job_name": job,
        "byoc.job_arn": environ.get("TRAINING_JOB_ARN", ""),
        "byoc.image": image,
        "byoc.image_digest": digest,
        "byoc.instance_type": environ.get("SM_CURRENT_INSTANCE_TYPE", ""),
        "byoc.hosts": str(len(_json(environ, "SM_HOSTS", [])) or ""),
        "mlflow.source.name": environ.get("SM_USER_ENTRY_POINT") or Path(sys.argv[0]).name,
        "mlflow.source.type": "JOB",
    }
    folder = Path(environ.get("SM_CHECKPOINT_DIR") or "/opt/ml/checkpoints")
    name = f"mlflow-run-{job}.json" if job else "mlflow-run.json"
    return {
        "parameters": _json(environ, "SM_HPS", {}),
        "tags": {name: value for name, value in tags.items() if value},
        "run_name": environ.get("MLFLOW_RUN_NAME") or job,
        "state": str(folder / name) if folder.is_dir() else None,
    }


def _image_of_request(environ: Mapping[str, str]) -> str:
    path = Path(
        environ.get("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"), "trainingjobconfig.json"
    )
    try:
        image = json.loads(path.read_bytes())["AlgorithmSpecification"]["TrainingImage"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return str(image or "")


def _json(environ: Mapping[str, str], name: str, default: Any) -> Any:
    try:
        value = json.loads(environ.get(name) or "null")
    except ValueError:
        return default
    return value if isinstance(value, type(default)) else default
