"""The commands against a real local endpoint: real ``train``, real ``serve``, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from byoc.aws import Aws
from byoc.errors import FailedError, InvocationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import os, pathlib, time
print("channel", sorted(os.listdir(os.environ["SM_CHANNEL_TRAINING"])))
print("epoch=1; train_loss=0.5; test_loss=0.25; test_accuracy=0.9;", flush=True)
if "SLOW" in os.environ:
    time.sleep(600)
if "BAD" in os.environ:
    raise SystemExit("told to fail")
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
(model / "code").mkdir()
handler = pathlib.Path(__file__).with_name("handler.txt").read_text()
(model / "code" / "inference.py").write_text(handler)
"""
HANDLER = """
import json

def model_fn(model_dir):
    return "no weights"

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(data, model):
    if data == "bad":
        raise ValueError("told to fail")
    (row,) = [n for n, values in enumerate(data[0][0]) if max(values) > 2]
    return [[-0.01 if n == row else -9.0 for n in range(10)]]

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """``byoc local up`` with the process runner; its address."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environ["BYOC_HOME"] = str(tmp_path_factory.mktemp("home"))
    with subprocess.Popen(
        [sys.executable, "-m", "byoc.main", "local", "up", "--port", "0", "--runner", "process"],
        env=environ, stdout=subprocess.PIPE, start_new_session=True, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().partition("=")[2]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture
def local(server, monkeypatch, tmp_path) -> Aws:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    source = tmp_path / "source"
    source.mkdir()
    (source / "program.py").write_text(PROGRAM)
    (source / "handler.txt").write_text(HANDLER)
    return Aws("us-east-1")


def job(tmp_path: Path, digits: Path, name: str) -> tuple[str, ...]:
    return (
        "train", "--name", name, "--data", f"training={digits}",
        "-p", "sagemaker_program=program.py",
        "-p", f"sagemaker_submit_directory={tmp_path / 'source'}",
    )  # fmt: skip


def test_a_job_is_trained_followed_listed_and_described(byoc, local, tmp_path, digits):
    done = byoc(*job(tmp_path, digits, "one"), "--wait")
    assert done.code == 0, done
    lines = done.out.splitlines()
    states = [line.split()[0] for line in lines if line[:1].isupper()]
    assert states[0] == "Starting"
    assert states[-1] == "Completed"
    assert "  | channel ['t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte']" in lines
    assert "  test_accuracy  0.9" in lines
    assert "serve it: byoc deploy --job one" in lines
    assert "test_loss=0.25" in byoc("logs", "one").out
    assert ["one", "Completed"] in [
        row.split()[1:3] for row in byoc("list", "jobs").out.splitlines()
    ]
    described = byoc("describe", "one", "--json").json
    assert described["HyperParameters"]["sagemaker_program"] == "program.py"


def test_a_job_that_fails_is_exit_code_14_with_the_program_s_words(byoc, local, tmp_path, digits):
    done = byoc(*job(tmp_path, digits, "bad"), "-e", "BAD=1", "--wait", "--no-logs")
    assert done.code == FailedError.exit_code
    assert "told to fail" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_job_is_stopped(byoc, local, tmp_path, digits):
    assert byoc(*job(tmp_path, digits, "slow"), "-e", "SLOW=1").code == 0
    done = byoc("stop", "slow", "--wait", "--json")
    assert done.code == 0, done
    assert done.json["TrainingJobStatus"] == "Stopped"
    assert "has ended already: Stopped" in byoc("stop", "slow").out


def test_ctrl_c_ends_the_wait_and_not_the_job(byoc, local, tmp_path, digits):
    words = (*job(tmp_path, digits, "waited"), "-e", "SLOW=1", "--wait")
    # A shell starts its background jobs with SIGINT ignored, and the tests may be one.
    shell = ("env", "--default-signal=INT")
    with subprocess.Popen(
        [*shell, sys.executable, "-m", "byoc.main", *words], stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        for line in waiting.stdout:
            if "epoch=1" in line:
                waiting.send_signal(signal.SIGINT)
                break
        rest = waiting.stdout.read()
    assert waiting.returncode == 130
    assert "the job goes on: byoc logs waited --follow" in rest
    assert byoc("describe", "waited", "--json").json["TrainingJobStatus"] == "InProgress"
    assert byoc("stop", "waited", "--wait").code == 0


def test_a_program_of_ones_own_goes_along_as_the_channel_code(byoc, local, tmp_path, digits):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text("import sys\nprint('mine', *sys.argv[1:])\n")
    words = (
        "--data",
        f"code={tmp_path / 'src'}",
        "-p",
        "sagemaker_program=mine.py",
        "-p",
        "lr=0.5",
    )
    done = byoc("train", "--name", "own", "--data", f"training={digits}", *words, "--wait")
    assert done.code == 0, done
    assert "  | mine --lr 0.5" in done.out.splitlines()


@pytest.mark.slow
def test_the_whole_story(byoc, local, tmp_path, digits):
    assert byoc(*job(tmp_path, digits, "story"), "--wait").code == 0
    done = byoc("deploy", "--job", "story", "--name", "digits")
    assert done.code == 0, done
    assert "InService" in done.out
    for seed in range(3):
        words = ("invoke", "digits", "--random-digit", str(digits), "--seed", str(seed))
        answer = byoc(*words)
        assert answer.code == 0, answer
        label = byoc(*words, "--json").json["digit"]["label"]
        assert f"Most likely answer: {label}" in answer.out.splitlines()
    refused = byoc("invoke", "digits", "--body", json.dumps("bad"))
    assert refused.code == InvocationError.exit_code
    assert "byoc logs digits" in refused.err
    assert byoc("logs", "digits").out
    gone = byoc("delete", "digits", "--yes")
    assert gone.code == 0, gone
    assert byoc("invoke", "digits", "--body", "1").code == NotFoundError.exit_code
    assert byoc("list", "models", "--json").json == []
