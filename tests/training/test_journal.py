from __future__ import annotations

import json
import math
import subprocess

import pytest

from byoc_training.journal import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "not" / "yet" / "metrics.jsonl"


def test_records_come_back_and_each_line_is_strict_json(path):
    journal = Journal(path, "step")
    journal.append({"step": 1, "loss": 0.1, "note": "größe"})
    journal.append({"step": 2, "loss": float("nan"), "up": float("inf"), "down": -math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    first, second = journal.records()
    assert first == {"step": 1, "loss": 0.1, "note": "größe"}
    assert math.isnan(second["loss"])
    assert (second["up"], second["down"]) == (math.inf, -math.inf)


def test_another_program_appends(path):
    Journal(path, "step").append({"step": 1})
    Journal(path, "step").append({"step": 2})
    assert [one["step"] for one in Journal(path, "step").records()] == [1, 2]


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', "{", '{"step": 2}'])
def test_a_line_that_was_cut_off_goes(path, torn):
    Journal(path, "step").append({"step": 1})
    with path.open("a") as file:
        file.write(torn)
    Journal(path, "step").append({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_steps_that_come_again_are_taken_out(path):
    journal = Journal(path, "step")
    for step in range(5):
        journal.append({"step": step, "run": 1})
    again = Journal(path, "step")
    again.cut(3)
    again.append({"step": 3, "run": 2})
    assert [(one["step"], one["run"]) for one in again.records()] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
    ]


def test_foreign_lines_are_no_records(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b'[]\nnull\n{"step": "x"}\n{"other": 1}\n\xff\n{"step": 4}\n')
    assert Journal(path, "step").records() == [{"step": 4}]


def test_a_full_disk_leaves_whole_lines(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        journal = Journal(tmp_path / "metrics.jsonl", "step")
        step = 0
        with pytest.raises(OSError, match="No space left on device"):  # noqa: PT012 - until it is
            for step in range(1000):
                journal.append({"step": step, "loss": 0.123456789})
        assert len(journal.records()) == step
        assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"\n")
        journal.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
