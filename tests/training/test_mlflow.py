"""The way to MLflow: its own server, where BYOC_MLFLOW_PYTHON names an interpreter that has it
(see make-mlflow).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.training.mlflow_jobs import DEADLINE_SECONDS, PROGRAM, TOLD, Job, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return prepared(tmp_path)


@dataclass
class Server:
    """A running MLflow."""

    url: str

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}",
            json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def runs(self, experiment: str) -> list[Any]:
        found = self.ask(f"experiments/get-by-name?experiment_name={experiment}")
        identity = found["experiment"]["experiment_id"]
        runs: list[Any] = self.ask("runs/search", experiment_ids=[identity]).get("runs", [])
        return runs

    def history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        found = self.ask(f"metrics/get-history?run_id={run_id}&metric_key={key}")
        return [(int(one["step"]), float(one["value"])) for one in found["metrics"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = os.environ.get("BYOC_MLFLOW_PYTHON")
    if not python:
        pytest.skip("no MLflow server here; make one with tests/training/make-mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/runs.db")
    artefacts = ("--artifacts-destination", str(folder / "artefacts"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "mlflow", "server", *options, *stores, *artefacts],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            start_new_session=True,
        )
    try:
        made = Server(f"http://127.0.0.1:{port}")
        until = time.monotonic() + 2 * DEADLINE_SECONDS
        while True:
            # Not /health: the first call that needs the store takes long.
            try:
                made.ask("experiments/get-by-name?experiment_name=Default")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.2)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_job_is_a_run_with_all_that_it_told(server, job):
    image = "1.dkr.ecr.eu-west-1.amazonaws.com/train@sha256:def"
    config = {"AlgorithmSpecification": {"TrainingImage": image}}
    (job.root / "config" / "trainingjobconfig.json").write_text(json.dumps(config))
    secret = server.url.replace("http://", "http://me:secret@")
    said = job.run(secret, MLFLOW_EXPERIMENT_NAME="digits")
    assert said[:4] == TOLD
    (run,) = server.runs("digits")
    run_id = run["info"]["run_id"]
    assert said[4:] == [f"metrics: MLflow run {run_id} begins at {server.url}"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("digits-1", "FINISHED")
    parameters = {one["key"]: one["value"] for one in run["data"]["params"]}
    assert parameters == {"lr": "0.5", "layers": "[1, 2]", "name": "adam", "odd_": "x"}
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    assert tags["byoc.job_name"] == "digits-1"
    assert tags["byoc.image"] == image
    assert tags["byoc.image_digest"] == "sha256:abc"
    assert tags["mlflow.source.name"] == "train.py"
    assert server.history(run_id, "loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert len(server.history(run_id, "odd")) == 3
    assert len(server.history(run_id, "system/memory_bytes")) == 1
    files = server.ask(f"artifacts/list?run_id={run_id}&path=model")["files"]
    assert {(one["path"], one.get("file_size")) for one in files} == {
        ("model/model.pth", 7),
        ("model/code", None),
    }
    state = (job.root / "checkpoints" / "mlflow-run-digits-1.json").read_text()
    assert "secret" not in state


@pytest.mark.slow
def test_a_job_that_is_started_again_goes_on_in_its_run(server, job):
    killed = PROGRAM.replace("tracker.log_model", "import os; os.kill(os.getpid(), 9)#")
    environment = job.environment(server.url, MLFLOW_EXPERIMENT_NAME="again")
    process = subprocess.run(
        job.command(killed), env=environment, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert process.returncode == -signal.SIGKILL
    until = time.monotonic() + DEADLINE_SECONDS
    state = job.root / "checkpoints" / "mlflow-run-digits-1.json"
    while not state.exists() or server.runs("again")[0]["info"]["status"] != "FAILED":
        assert time.monotonic() < until, "the end of the program was not told"
        time.sleep(0.1)
    (before,) = server.runs("again")

    changed = json.dumps({"lr": 0.25})
    said = job.run(server.url, MLFLOW_EXPERIMENT_NAME="again", SM_HPS=changed)
    (after,) = server.runs("again")
    assert after["info"]["run_id"] == before["info"]["run_id"]
    assert after["info"]["status"] == "FINISHED"
    assert f"MLflow run {before['info']['run_id']} goes on at" in said[4]
    # Parameters of a run cannot change; that costs a line, and nothing else.
    assert said[5].startswith("metrics: MLflow refuses something (start): ")
    assert len(said) == 6
    assert len(server.history(before["info"]["run_id"], "loss")) == 6

    # Another job of the same checkpoints is another run, and so is one whose run is gone.
    job.run(server.url, MLFLOW_EXPERIMENT_NAME="again", TRAINING_JOB_NAME="digits-2")
    assert len(server.runs("again")) == 2
    server.ask("runs/delete", run_id=before["info"]["run_id"])
    said = job.run(server.url, MLFLOW_EXPERIMENT_NAME="again")
    assert f"has no run {before['info']['run_id']} any more; making another" in "".join(said)
    assert len(server.runs("again")) == 2


@pytest.mark.slow
def test_a_program_that_fails_is_a_failed_run(server, job):
    program = PROGRAM.replace("tracker.log_model", "raise KeyError")
    done = subprocess.run(
        job.command(program),
        env=job.environment(server.url, MLFLOW_EXPERIMENT_NAME="failing"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("KeyError")
    (run,) = server.runs("failing")
    assert run["info"]["status"] == "FAILED"
    assert len(server.history(run["info"]["run_id"], "loss")) == 3
