from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from byoc_training.checkpoint import CheckpointError, Checkpoints, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path)


def test_the_newest_comes_back_and_two_are_kept(checkpoints, tmp_path):
    for step in (1, 2, 10, 9):
        checkpoints.save(step, {"step": step, "weights": torch.full((2,), float(step))})
    assert [int(path.name.split("-")[1]) for path in checkpoints.newest_first()] == [10, 9]
    state = checkpoints.load()
    assert (state["step"], state["weights"].tolist()) == (10, [10.0, 10.0])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.contract(36)
@pytest.mark.parametrize("damage", ["truncated", "a bit", "empty", "gone"])
def test_a_damaged_one_is_passed_over(checkpoints, capsys, damage):
    checkpoints.save(1, {"step": 1})
    newest = checkpoints.save(2, {"step": 2})
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        del content[-100:]
    elif damage == "a bit":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    newest.write_bytes(content)
    if damage == "gone":
        newest.unlink()
    assert checkpoints.load()["step"] == 1
    assert ("skipping" in capsys.readouterr().out) is (damage != "gone")


def test_all_damaged_is_none(checkpoints):
    checkpoints.save(1, {"step": 1}).write_bytes(b"no")
    assert checkpoints.load() is None


@pytest.mark.contract(38)
def test_without_a_folder_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv("SM_CHECKPOINT_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    none = Checkpoints()
    assert none.save(1, {"step": 1}) is None
    assert none.load() is None
    assert list(tmp_path.iterdir()) == []


def test_the_job_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv("SM_CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.setenv("TRAINING_JOB_NAME", "tuning-007")
    path = Checkpoints().save(3, {})
    assert path is not None
    assert path.name.startswith("tuning-007-000000000003-")
    # Another job of the same tuning job does not take it for its own.
    monkeypatch.setenv("TRAINING_JOB_NAME", "tuning")
    assert Checkpoints().load() is None


def test_generators_go_on_where_they_stood(checkpoints):
    def draw() -> tuple[float, float, float]:
        # numpy's global generator is what programs that set a seed have in use.
        old = float(np.random.random())  # noqa: NPY002
        return random.random(), old, float(torch.rand(()))

    draw()
    checkpoints.save(1, {})
    wanted = draw()
    draw()
    checkpoints.load()
    assert draw() == wanted
    checkpoints.load(restore_random=False)
    assert draw() != wanted


def test_other_ranks_write_nothing(checkpoints, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    assert checkpoints.save(1, {}) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract(37)
def test_a_full_disk_leaves_what_was_there(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(1, {"step": 1})
        checkpoints.save(2, {"step": 2})
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(CheckpointError, match=r"No space left on device; the checkpoints bef"):
            checkpoints.save(3, {"step": 3, "weights": torch.zeros(100_000)})
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        assert checkpoints.load()["step"] == 2
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_each_part_gets_its_state_back(checkpoints):
    saved, model = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    checkpoints.save(1, {"model": saved.state_dict()})
    checkpoints.restore(checkpoints.load(), model=model)
    assert torch.equal(model.weight, saved.weight)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (torch.nn.Linear(4, 2), "size mismatch for weight"),
        (torch.nn.Linear(3, 2, bias=False), 'Unexpected key(s) in state_dict: "bias"'),
        (torch.nn.Sequential(*(torch.nn.Linear(9, 9) for _ in range(99))), "Missing key(s)"),
    ],
    ids=["size", "name", "many"],
)
def test_a_checkpoint_of_another_architecture_is_one_line(checkpoints, tmp_path, other, words):
    checkpoints.save(1, {"model": torch.nn.Linear(3, 2).state_dict()})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(checkpoints.load(), model=other)
    text = str(caught.value)
    assert text.startswith(f"the checkpoint in {tmp_path} does not fit this program's model: ")
    assert words in text
    assert "\n" not in text
    assert len(text) < 1000
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_of_another_program_is_one_line(checkpoints):
    checkpoints.save(1, {"step": 1})
    with pytest.raises(CheckpointError, match="does not fit this program's model: it has no 'mod"):
        checkpoints.restore(checkpoints.load(), model=torch.nn.Linear(1, 1))


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="No such file or directory"):
        write_atomically(tmp_path / "no" / "file", b"x")


@pytest.mark.parametrize("step", [-1, 10**12])
def test_steps_have_twelve_digits(checkpoints, step):
    with pytest.raises(ValueError, match="expected 0 to"):
        checkpoints.save(step, {})


@pytest.mark.parametrize("arguments", [{"prefix": "a/b"}, {"prefix": ".x"}, {"keep": 1}])
def test_bad_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match="expected"):
        Checkpoints(tmp_path, **arguments)
