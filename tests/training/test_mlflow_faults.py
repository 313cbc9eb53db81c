"""The way to MLflow when its server fails, as a small one of our own does on demand."""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.training.mlflow_jobs import ARN, PROGRAM, TOLD, Job, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return prepared(tmp_path)


@dataclass
class Double:
    """As much of MLflow's REST API as the client needs, and its faults.

    Attributes:
        fail: How many requests are answered with an error before any is taken.
        refuse: A metric that is refused for good.
    """

    url: str = ""
    fail: int = 0
    refuse: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    metrics: list[tuple[str, int, float]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if self.fail > 0:
            self.fail -= 1
            return 500, {"error_code": "INTERNAL_ERROR", "message": "no database"}
        if "experiments/get-by-name" in path:
            return 200, {"experiment": {"experiment_id": "0", "name": "Default"}}
        run = {"info": {"run_id": "r1", "status": "RUNNING", "artifact_uri": "file:///nowhere"}}
        if path.endswith("runs/log-batch"):
            metrics = body.get("metrics", [])
            if self.refuse in [one["key"] for one in metrics]:
                return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no such"}
            self.metrics += [(one["key"], int(one["step"]), one["value"]) for one in metrics]
            return 200, {}
        if path.endswith("runs/update") and body.get("status") != "RUNNING":
            self.ended.set()
        return 200, {"run": run, "run_info": run["info"]}


@pytest.fixture
def double() -> Iterator[Double]:
    state = Double()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.requests.append((self.command, self.path, dict(self.headers), body))
            status, content = state.answer(self.path.partition("?")[0], json.loads(body or b"{}"))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815 - their names there

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


NO_MODEL = PROGRAM.replace("    tracker.log_model(sys.argv[1])\n", "")


def test_a_server_that_comes_back_gets_what_it_has_missed(double, job):
    double.fail = 2
    said = job.talk(double.url, NO_MODEL + "    input()\n", "answers again")
    assert said[:4] == TOLD
    assert said[4] == (
        f"metrics: MLflow at {double.url} fails; the training goes on without it: "
        "too many 500 error responses"
    )
    assert said[5:] == [
        f"metrics: MLflow run r1 begins at {double.url}",
        "metrics: MLflow answers again, and has got what it had missed",
    ]
    assert [step for name, step, _ in double.metrics if name == "loss"] == [1, 2, 3]
    assert double.ended.is_set()


def test_what_is_refused_for_good_does_not_keep_the_rest(double, job):
    double.refuse = "odd"
    program = NO_MODEL + "    input()\n    tracker.log({'late': 1}, step=4)\n"
    said = job.talk(double.url, program, "refuses")
    assert said == [
        *TOLD,
        f"metrics: MLflow run r1 begins at {double.url}",
        "metrics: MLflow refuses something (metrics): INVALID_PARAMETER_VALUE: no such",
        "epoch=4; late=1;",
    ]
    assert [(name, step) for name, step, _ in double.metrics if name == "late"] == [("late", 4)]
    assert double.ended.is_set()


def test_a_server_that_refuses_connections_costs_a_line(job):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = job.run(f"http://me:secret@127.0.0.1:{port}")
    assert said[:4] == TOLD
    assert said[4] == (
        f"metrics: MLflow at http://127.0.0.1:{port} fails; the training goes on without it: "
        "[Errno 111] Connection refused"
    )
    assert said[5:] == ["metrics: MLflow has not taken 4 messages, nor the model"]
    lines = (job.root / "output" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3


@pytest.mark.slow
def test_a_server_that_never_answers_is_waited_for_once(job):
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        said = job.run(f"http://127.0.0.1:{silent.getsockname()[1]}")
    # The client's own time-out would have been sixteen minutes; `run` has a minute and a half.
    assert said[:4] == TOLD
    assert len(said) == 6
    assert said[4].endswith("fails; the training goes on without it: Read timed out")
    assert said[5] == "metrics: MLflow has not taken 4 messages, nor the model"


def test_the_end_waits_no_longer_than_it_may(job):
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        said = job.run(
            f"http://127.0.0.1:{silent.getsockname()[1]}", BYOC_MLFLOW_CLOSE_SECONDS="0.5"
        )
    assert said == [*TOLD, "metrics: MLflow has not taken everything within 0.5 s"]


def test_a_process_that_is_stopped_does_not_hold_the_training(job):
    """The pipe fills; the program goes on, and kills it at the end."""
    program = """
import os, signal
from byoc_training import mlflow_link
from byoc_training.tracker import Tracker

mlflow_link.MOST_WAITING_BYTES = 300_000
with Tracker() as tracker:
    os.kill(tracker._mlflow._process.pid, signal.SIGSTOP)
    for step in range(5000):
        tracker.log({"loss": step}, step=step)
"""
    said = job.run("http://127.0.0.1:9", program, BYOC_MLFLOW_CLOSE_SECONDS="0.3")
    assert len(said) == 5001
    assert said[-1] == "metrics: MLflow has not taken everything within 0.3 s"


def test_a_process_that_dies_does_not_hold_the_training(job):
    program = """
from byoc_training.tracker import Tracker

with Tracker() as tracker:
    tracker._mlflow._process.kill()
    tracker._mlflow._process.wait()
    for step in range(3):
        tracker.log({"loss": step}, step=step)
"""
    assert len(job.run("http://127.0.0.1:9", program)) == 3


def test_modules_of_the_program_do_not_get_in_the_way(double, job):
    source = job.root / "source"
    source.mkdir()
    for name in ("mlflow", "queue", "logging"):
        (source / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    program = f"import sys; sys.path.remove({str(source)!r})\n" + NO_MODEL
    said = job.run(double.url, program, PYTHONPATH=str(source))
    assert "metrics: MLflow run r1 begins" in said[4]
    assert double.ended.is_set()


def test_a_stop_of_the_whole_group_lets_it_finish(double, job):
    """The platform's stop reaches every process; the program closes, and MLflow has everything."""
    program = """
import os, signal
from byoc_training.checkpoint import Stop
from byoc_training.tracker import Tracker

stop = Stop()
with Tracker() as tracker:
    tracker.log({"loss": 1}, step=1)
    input()
    os.killpg(0, signal.SIGTERM)
    tracker.log({"loss": 2}, step=2)
    tracker.close("KILLED")
"""
    job.talk(double.url, program, "begins")
    assert [step for name, step, _ in double.metrics if name == "loss"] == [1, 2]
    assert double.ended.is_set()


# ------------------------------------------------------------------ a server named by an ARN


def test_an_arn_goes_through_the_plugin_which_signs_each_request(double, job):
    said = job.run(
        ARN,
        NO_MODEL,
        SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT=double.url,
        AWS_ACCESS_KEY_ID="AKIDEXAMPLE",
        AWS_SECRET_ACCESS_KEY="verysecret",
        AWS_DEFAULT_REGION="us-east-1",
    )
    assert said[4:] == [f"metrics: MLflow run r1 begins at {ARN}"]
    assert double.ended.is_set()
    assert len(double.requests) >= 4
    for method, path, headers, body in double.requests:
        assert headers["x-mlflow-sm-tracking-server-arn"] == ARN
        sent = headers["Authorization"]
        date = headers["X-Amz-Date"]
        scope = f"AKIDEXAMPLE/{date[:8]}/eu-west-1/sagemaker-mlflow/aws4_request"
        assert sent.startswith(f"AWS4-HMAC-SHA256 Credential={scope}, ")
        # Signed with the secret: the same signature comes out here.
        names = re.search(r"SignedHeaders=([^,]+)", sent)
        assert names is not None
        given = {name.lower(): value for name, value in headers.items()}
        request = AWSRequest(
            method,
            double.url + path,
            {name: given[name] for name in names[1].split(";") if name != "host"},
            body,
        )
        request.context["timestamp"] = date
        auth = SigV4Auth(Credentials("AKIDEXAMPLE", "verysecret"), "sagemaker-mlflow", "eu-west-1")
        text = auth.string_to_sign(request, auth.canonical_request(request))
        assert sent.endswith(f"Signature={auth.signature(text, request)}")
