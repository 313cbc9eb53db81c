from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from byoc_training.errors import UsageError
from byoc_training.metrics import metric_definitions
from byoc_training.tracker import Tracker


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    """The directories of a job with one host; no sampling unless a test asks for it."""
    for name, folder in (("DATA", "output/data"), ("", "output")):
        monkeypatch.setenv(f"SM_OUTPUT_{name}_DIR".replace("__", "_"), str(tmp_path / folder))
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("BYOC_SYSTEM_METRICS_SECONDS", "0")
    return tmp_path / "output" / "data"


def lines(path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(folder, tag: str) -> list[tuple[int, Any]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(one.step, pytest.approx(one.value)) for one in accumulator.Scalars(tag)]


def test_what_is_told_is_in_every_place(output, capsys):
    with Tracker("epoch") as tracker:
        tracker.log({"train_loss": 0.25, "test_accuracy": 0.5}, step=1)
        tracker.log({"train_loss": 1e-05, "test_accuracy": 1}, step=2)
        history = tracker.history()
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "epoch=1; train_loss=0.25; test_accuracy=0.5;",
        "epoch=2; train_loss=1e-05; test_accuracy=1;",
    ]
    loss, accuracy = metric_definitions(["train_loss", "test_accuracy"])
    assert re.findall(loss["Regex"], printed) == ["0.25", "1e-05"]
    assert re.findall(accuracy["Regex"], printed) == ["0.5", "1"]
    assert lines(output / "metrics.jsonl") == history
    assert [list(one)[:3] for one in history] == [["epoch", "train_loss", "test_accuracy"]] * 2
    assert scalars(output / "tensorboard", "train_loss") == [(1, 0.25), (2, 1e-05)]
    assert [path.name for path in output.iterdir() if path.is_file()] == ["metrics.jsonl"]


def test_the_last_telling_of_a_step_counts(output):
    with Tracker() as tracker:
        for step in range(5):
            tracker.log({"loss": 10 + step}, step=step)
        # Another metric of the same step does not take the first one out.
        tracker.log({"other": 1}, step=4)
    with Tracker() as tracker:
        for step in (3, 4):
            tracker.log({"loss": 20 + step}, step=step)
    assert [(one["step"], one.get("loss")) for one in lines(output / "metrics.jsonl")] == [
        (0, 10),
        (1, 11),
        (2, 12),
        (3, 23),
        (4, 24),
    ]
    assert [value for _, value in scalars(output / "tensorboard", "loss")] == [10, 11, 12, 23, 24]


def test_what_a_checkpoint_says_of_earlier_steps_is_taken_over(output, tmp_path, capsys):
    with Tracker("epoch") as tracker:
        for epoch in (1, 2):
            tracker.log({"loss": 1 / epoch}, step=epoch)
        history = tracker.history()
        tracker.log({"loss": 99.0}, step=3)
    capsys.readouterr()
    # The next start is on another host: nothing but the checkpoint has come there.
    new = tmp_path / "new"
    with Tracker("epoch", new) as tracker:
        tracker.restore(history)
        tracker.log({"loss": 0.1}, step=3)
        assert [one["loss"] for one in tracker.history()] == [1.0, 0.5, 0.1]
    assert capsys.readouterr().out == "epoch=3; loss=0.1;\n"
    assert scalars(new / "tensorboard", "loss") == [(1, 1.0), (2, 0.5), (3, 0.1)]
    # Both starts' events, as the platform's copies come together in S3.
    for path in (new / "tensorboard").iterdir():
        path.rename(output / "tensorboard" / path.name)
    assert scalars(output / "tensorboard", "loss") == [(1, 1.0), (2, 0.5), (3, 0.1)]


def test_other_ranks_say_and_write_nothing(output, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("BYOC_SYSTEM_METRICS_SECONDS", "0.01")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    threads = threading.active_count()
    with Tracker() as tracker:
        assert threading.active_count() == threads
        tracker.log({"loss": 1}, step=1)
        tracker.restore([{"step": 0, "loss": 2}])
        tracker.log_model(output)
        assert tracker.history() == []
    assert capsys.readouterr().out == ""
    assert not output.exists()


def test_without_ranks_the_first_host_s_program_writes(output, monkeypatch):
    monkeypatch.setenv("SM_CURRENT_HOST_RANK", "1")
    with Tracker() as tracker:
        tracker.log({"loss": 1}, step=1)
    assert not output.exists()


@pytest.mark.contract(34)
def test_every_host_is_sampled_under_its_name(output, monkeypatch):
    monkeypatch.setenv("BYOC_SYSTEM_METRICS_SECONDS", "3600")
    monkeypatch.setenv("SM_HOSTS", '["algo-1", "algo-2"]')
    for rank, host in enumerate(("algo-1", "algo-2")):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("SM_CURRENT_HOST", host)
        with Tracker() as tracker:
            tracker.log({"loss": 1}, step=1)
        (sample,) = lines(output / f"system-{host}.jsonl")
        assert sample["host"] == host
        assert sample["memory_bytes"] > 0
        (value,) = scalars(output / "tensorboard" / host, "system/memory_bytes")
        assert value[1] == pytest.approx(sample["memory_bytes"], rel=1e-6)
    assert len(lines(output / "metrics.jsonl")) == 1


def test_samples_of_a_program_that_is_started_again_go_on(output, monkeypatch):
    monkeypatch.setenv("BYOC_SYSTEM_METRICS_SECONDS", "3600")
    output.mkdir(parents=True)
    before = {"seconds": 500.0, "time": 1000.0, "cpu_percent": 1.0}
    (output / "system.jsonl").write_text(json.dumps(before) + "\n")
    with Tracker():
        pass
    first, second = lines(output / "system.jsonl")
    assert first == before
    assert second["seconds"] == pytest.approx(second["time"] - 500, abs=0.1)


def test_tensorboard_goes_where_the_job_says(output, tmp_path):
    named = tmp_path / "elsewhere"
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "tensorboardoutputconfig.json"

    def written_to(folder) -> bool:
        with Tracker() as tracker:
            tracker.log({"loss": 1}, step=1)
        return any(folder.glob("events.out.tfevents.*"))

    # The default path, where the platform has made it.
    assert written_to(output / "tensorboard")
    (tmp_path / "output" / "tensorboard").mkdir()
    assert written_to(tmp_path / "output" / "tensorboard")
    config.write_text(json.dumps({"S3OutputPath": "s3://bucket/x", "LocalPath": f"{named}/"}))
    assert written_to(named)
    for content in ("{", "[]", '{"LocalPath": 3}', '{"S3OutputPath": "s3://bucket/x"}'):
        config.write_text(content)
        for path in (tmp_path / "output" / "tensorboard").iterdir():
            path.unlink()
        assert written_to(tmp_path / "output" / "tensorboard"), content


def test_a_place_that_cannot_be_written_is_one_line_each(output, tmp_path, capsys):
    (tmp_path / "output").write_text("a file, not a directory")
    with Tracker() as tracker:
        for step in range(3):
            tracker.log({"loss": step}, step=step)
        assert tracker.history() == []
    told = [line for line in capsys.readouterr().out.splitlines() if "loss=" not in line]
    assert told == [
        f"metrics: cannot write {what}: Not a directory; the training goes on without it"
        for what in ("metrics.jsonl", "TensorBoard events")
    ]


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        ({"loss": 1}, -1, "step is -1"),
        ({"a b": 1}, 1, "'a b' is no name"),
        ({"step": 1}, 1, "'step' cannot be a metric"),
        ({"time": 1}, 1, "'time' cannot be a metric"),
    ],
)
def test_what_cannot_be_told_is_refused_and_nothing_is_written(output, values, step, message):
    with Tracker() as tracker, pytest.raises(ValueError, match=message):
        tracker.log(values, step)
    assert not output.exists()


@pytest.mark.parametrize("name", ["BYOC_SYSTEM_METRICS_SECONDS", "BYOC_MLFLOW_CLOSE_SECONDS"])
@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_a_setting_that_makes_no_sense_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}='{value}' is not a number of seconds"):
        Tracker()


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_heavy_is_imported_and_all_is_closed_at_the_end(output):
    done = run(
        "import sys, threading\n"
        "from byoc_training.tracker import Tracker\n"
        "tracker = Tracker()\n"
        "tracker.log({'loss': 1}, step=1)\n"
        "heavy = {'mlflow', 'tensorboard', 'torch', 'numpy', 'matplotlib', 'google', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())\n",
        BYOC_SYSTEM_METRICS_SECONDS="3600",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["step=1; loss=1;", "[] 2"]
    # The last sample: the program has not closed the tracker, its end has.
    assert len(lines(output / "system.jsonl")) == 1


def test_a_killed_program_loses_no_line(output):
    done = run(
        "import os, signal\n"
        "from byoc_training.tracker import Tracker\n"
        "tracker = Tracker()\n"
        "for step in range(50):\n"
        "    tracker.log({'loss': step}, step=step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert done.returncode == -9
    assert len(lines(output / "metrics.jsonl")) == 50
    assert len(scalars(output / "tensorboard", "loss")) == 50


def test_forked_processes_leave_it_alone(output):
    done = run(
        "import os, sys\n"
        "from byoc_training.tracker import Tracker\n"
        "with Tracker() as tracker:\n"
        "    tracker.log({'loss': 1}, step=1)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        tracker.log({'loss': 2}, step=2)\n"
        "        sys.exit()\n"
        "    os.waitpid(child, 0)\n"
        "    tracker.log({'loss': 3}, step=3)\n",
        BYOC_SYSTEM_METRICS_SECONDS="3600",
    )
    assert done.returncode == 0, done.stderr
    assert [one["loss"] for one in lines(output / "metrics.jsonl")] == [1, 3]
    assert len(lines(output / "system.jsonl")) == 1
