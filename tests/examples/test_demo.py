from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def demo(output: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--output", str(output), *options],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def left_running(output: Path) -> list[str]:
    """Command lines of processes that know a folder below ``output``: the endpoint, its jobs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(output / "sagemaker").encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.contract(39)
def test_the_story_is_told_from_the_data_to_the_answer(tmp_path):
    code, output = finish(demo(tmp_path / "out", "--epochs", "3", "--seed", "7"))
    assert code == 0, output
    steps = re.findall(r"^\[(\d)/6\]", output, re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5", "6"]
    states = re.findall(r"^  ([A-Z][A-Za-z]+)$", output, re.MULTILINE)
    job = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert states == [*job, "Creating", "InService"]
    answer = re.search(r"^Most likely answer: (\d)\n  \(it is a (\d);", output, re.MULTILINE)
    assert answer
    bars = re.findall(r"^    (\d)  (█*) +(\d+\.\d\d) %$", output, re.MULTILINE)
    assert [bar[0] for bar in bars] == list("0123456789")
    probabilities = [float(bar[2]) for bar in bars]
    assert sum(probabilities) == pytest.approx(100, abs=0.1)
    assert probabilities[int(answer[1])] == max(probabilities)
    assert "  | train: train.py succeeded after " in output
    assert re.search(r"^  \| .* ready after .* code/inference.py", output, re.MULTILINE)
    for name in ("model.tar.gz", "digit.png", "train.log", "serve.log"):
        assert str(tmp_path / "out" / name) in output
        assert (tmp_path / "out" / name).is_file()
    assert (tmp_path / "out/output/training-curve.png").is_file()
    assert left_running(tmp_path / "out") == []


@pytest.mark.slow
def test_a_folder_many_digits_and_a_hyperparameter_can_be_given(tmp_path, digits):
    process = demo(
        tmp_path / "out",
        *("--data", str(digits), "--digits", "20", "--seed", "0"),
        *("--hyperparameters", "lr=0.5 batch-size=32"),
        PYTHONIOENCODING="ascii",
    )
    code, output = finish(process)
    assert code == 0, output
    assert "CreateTrainingJob  (epochs=1 seed=0 lr=0.5 batch-size=32)" in output
    assert re.search(r"\d+ of 20 digits \(SEED=0\.\.19\) answered right", output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "/no/such/folder"), "DATA=/no/such/folder is neither digits, mnist nor"),
        (("--hyperparameters", "lr"), "'lr' is no hyperparameter; write name=value"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, options, message):
    code, output = finish(demo(tmp_path / "out", *options))
    assert code == 1
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output


def test_an_empty_data_folder_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    code, output = finish(demo(tmp_path / "out", "--data", str(tmp_path / "empty")))
    assert code == 1
    assert "no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz" in output.splitlines()[-1]


def test_a_failing_training_ends_the_story_with_its_reason(tmp_path):
    # A surrounding AWS session, even a broken one, has no say in the story; nor has a proxy.
    surrounding = {
        "AWS_PROFILE": "nope",
        "AWS_SESSION_TOKEN": "old",
        "AWS_ENDPOINT_URL_S3": "x",
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
    }
    code, output = finish(
        demo(tmp_path / "out", "--hyperparameters", "batch-size=0", **surrounding)
    )
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("demo: the training job is Failed: AlgorithmError: ")
    assert "--batch-size must be at least 1" in last
    assert left_running(tmp_path / "out") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_stops_what_it_started(tmp_path, number):
    process = demo(tmp_path / "out", "--epochs", "1000")
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch=1;" in line:
            assert left_running(tmp_path / "out")
            process.send_signal(number)
            break
    code, output = finish(process)
    assert code == 1
    assert output.splitlines()[-1] == "demo: stopped"
    assert left_running(tmp_path / "out") == []


@pytest.mark.slow
def test_mnist_offline_says_what_to_do(tmp_path):
    process = demo(
        tmp_path / "out",
        "--data",
        "mnist",
        http_proxy="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
    )
    code, output = finish(process)
    assert code == 1
    assert "MNIST cannot be downloaded here" in output.splitlines()[-1]
    assert "DATA=digits" in output.splitlines()[-1]
    shutil.rmtree(tmp_path / "out")
