"""``serve --check`` and the rest of the command line, as processes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from byoc_serving.arguments import Arguments, parse
from byoc_serving.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HANDLER = """
    def model_fn(model_dir):
        print("loading", model_dir)
        return lambda x: x * 2

    def input_fn(body, content_type):
        return float(body)

    def output_fn(prediction, accept):
        return str(prediction)
"""


@pytest.fixture
def serve(serve_command: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        # An address that is not of this machine: a check that listened would fail.
        environ = {**os.environ, "BYOC_ROOT": str(root), "BYOC_HOST": "203.0.113.1"}
        return subprocess.run(
            [*serve_command, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_a_check_tries_the_models_own_sample(serve, model_root, torchscript):
    root = model_root(model__pt=torchscript.read_bytes(), sample__json=b"[[1, 2, 3, 4]]")
    before = sorted(path.name for path in (root / "model").rglob("*"))

    done = serve(root, "--check", "--json")

    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["status"], report["answer"]) == (200, "[[4.5,6.5,8.5,10.5]]")
    assert report["device"] == "cpu"
    assert report["handler"] == "default functions"
    assert report["load_s"] > 0
    assert report["first_ms"] >= report["warm_ms"] > 0
    assert sorted(path.name for path in (root / "model").rglob("*")) == before


def test_a_check_runs_the_handlers_functions_and_reports_their_failure(serve, model_root, tmp_path):
    root = model_root(HANDLER)
    (tmp_path / "good.bin").write_bytes(b"21")
    (tmp_path / "bad.csv").write_bytes(b"twenty-one")

    good = serve(root, "--check", "--sample", str(tmp_path / "good.bin"), "--content-type", "a/b")
    assert good.returncode == 0, good.stderr
    assert "loading" in good.stdout
    assert "42.0" in good.stdout

    bad = serve(root, "--check", "--json", "--sample", str(tmp_path / "bad.csv"))
    assert bad.returncode == 1
    report = json.loads(bad.stdout.splitlines()[-1])
    assert report["status"] == 400
    assert "could not convert string to float" in report["answer"]
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize(
    ("fault", "code", "status", "answer"),
    [("", 0, 200, "onetwo"), ("first", 1, 500, "predict_fn"), ("last", 1, 500, "one")],
)
def test_a_check_reads_a_streaming_answer_to_its_end(
    serve, model_root, fault, code, status, answer
):
    handler = f"""
        def model_fn(model_dir): return {fault!r}
        def predict_fn(data, model):
            if model == "first": raise OSError("early")
            yield "one"
            if model == "last": raise OSError("late")
            yield "two"
    """
    done = serve(model_root(handler, sample__json=b"[[1]]"), "--check", "--json")
    assert done.returncode == code, done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == status
    assert answer in report["answer"]


def test_a_check_without_a_sample_says_that_nothing_was_predicted(serve, model_root):
    done = serve(model_root(HANDLER), "--check")

    assert done.returncode == 0, done.stderr
    assert "sample   none" in done.stdout


def test_a_model_that_does_not_load_is_one_line_and_3(serve, model_root):
    done = serve(model_root("def model_fn(d): raise OSError('no weights')"), "--check")

    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("serve: ")
    assert "no weights" in line


@pytest.mark.parametrize(
    "words",
    [
        ["--chek"],
        ["train"],
        ["--check", "--sample"],
        ["--json"],
        ["--check", "--sample", "/does/not/exist.json"],
        ["--check", "--sample", "/etc/hostname"],
    ],
)
def test_arguments_that_are_not_understood_are_one_line_and_2(serve, model_root, words, tmp_path):
    if "--check" in words and len(words) == 3:
        done = serve(model_root(HANDLER), *words)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("serve: ")
    else:
        with pytest.raises(UsageError):
            parse(words)


def test_serve_serve_is_serve():
    assert parse(["serve"]) == parse([]) == Arguments()
    assert parse(["serve", "--check"]).check


def test_help_and_version_need_no_model(serve, tmp_path):
    shown = serve(tmp_path, "--version")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "serve")
    helped = serve(tmp_path, "--help")
    assert helped.returncode == 0
    assert "--check" in helped.stdout
