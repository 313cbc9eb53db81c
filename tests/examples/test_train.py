from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from byoc_training.metrics import metric_definitions


def weights(job) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(job.model / "model.pth", weights_only=True)
    return loaded


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.contract(33, 38)
def test_one_epoch_writes_the_final_files_only(job):
    done = job.run("--epochs", "1")
    assert done.returncode == 0, done.stderr
    written = sorted(
        re.sub(r"events\.out\.tfevents\.\S+", "EVENTS", str(p.relative_to(job.root)))
        for p in job.root.rglob("*")
        if p.is_file()
    )
    assert written == [
        "model/code/inference.py",
        "model/code/model.py",
        "model/model.pth",
        "output/confusion-matrix.png",
        "output/metrics.jsonl",
        "output/system.jsonl",
        "output/tensorboard/EVENTS",
        "output/tensorboard/algo-1/EVENTS",
        "output/training-curve.png",
    ]
    assert not any(p.is_symlink() for p in job.root.rglob("*"))
    assert not job.checkpoints.exists()
    assert (job.root / "output" / "training-curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_log_line_of_the_test_set_has_the_known_form(job):
    done = job.run("--epochs", "1")
    match = re.search(
        r"^Test set: Average loss: (\d\.\d{4}), Accuracy: (\d+)/100 \((\d+)%\)$",
        done.stdout,
        re.MULTILINE,
    )
    assert match, done.stdout
    correct = int(match[2])
    assert int(match[3]) == 100 * correct // 100
    entry = json.loads((job.root / "output" / "metrics.jsonl").read_text())
    assert entry["test_accuracy"] == correct / 100
    assert f"{entry['test_loss']:.4f}" == match[1]


def test_the_documented_regular_expressions_read_the_log_as_the_file_has_it(job):
    done = job.run("--epochs", "2")
    entries = [
        json.loads(line)
        for line in (job.root / "output" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [entry["epoch"] for entry in entries] == [1, 2]
    names = ["epoch", "train_loss", "test_loss", "test_accuracy", "seconds"]
    for definition in metric_definitions(names):
        found = [float(text) for text in re.findall(definition["Regex"], done.stdout)]
        assert found == pytest.approx([entry[definition["Name"]] for entry in entries], rel=1e-5)


@pytest.mark.slow
def test_the_embedded_digits_reach_97_percent_with_the_demo_s_defaults(job_on, digits):
    job = job_on(digits)
    done = job.run("--epochs", "12")
    last = json.loads((job.root / "output" / "metrics.jsonl").read_text().splitlines()[-1])
    assert done.returncode == 0
    assert last["test_accuracy"] >= 0.97


@pytest.mark.slow
def test_one_epoch_of_the_real_mnist_reaches_98_3_percent(job_on, mnist_folder):
    job = job_on(mnist_folder)
    done = job.run("--epochs", "1")
    last = json.loads((job.root / "output" / "metrics.jsonl").read_text())
    assert done.returncode == 0
    assert last["test_accuracy"] >= 0.983


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(job):
    results = []
    for seed in ("3", "3", "4"):
        assert job.run("--epochs", "1", "--seed", seed).returncode == 0
        results.append(weights(job))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


@pytest.mark.contract(35, 36, 37)
def test_training_goes_on_from_the_newest_checkpoint_that_can_be_read(job):
    job.checkpoints.mkdir()
    assert job.run("--epochs", "4").returncode == 0
    whole = weights(job)
    # Five batches an epoch.
    before, newest = sorted(job.checkpoints.iterdir())
    assert before.name.startswith("checkpoint-000000000015-")
    assert newest.name.startswith("checkpoint-000000000020-")

    # The newest is cut off in the middle, as a kill during an upload would leave it.
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    shutil.rmtree(job.model)
    # On another host there is nothing but the checkpoints.
    shutil.rmtree(job.root / "output")
    again = job.run("--epochs", "4")
    assert again.returncode == 0
    assert f"skipping {newest.name}: it is not what was written" in again.stdout
    assert f"going on from {before.name}" in again.stdout
    assert "epoch=4;" in again.stdout
    assert "epoch=3;" not in again.stdout
    lines = (job.root / "output" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert same(whole, weights(job))


@pytest.mark.contract(10, 35)
def test_sigterm_in_mid_epoch_saves_and_the_next_run_ends_bit_identical(job):
    options = ("--epochs", "3", "--batch-size", "2", "--log-interval", "40")
    assert job.run(*options).returncode == 0
    uninterrupted = weights(job)
    shutil.rmtree(job.model)

    job.checkpoints.mkdir()
    process = job.start(*options)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Train Epoch: 2"):
            process.terminate()
            break
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert re.search(r"Stopped in epoch 2 after \d+ batches", rest)
    assert (job.model / "model.pth").is_file()
    # 160 batches an epoch.
    steps = [int(path.name.split("-")[1]) for path in job.checkpoints.iterdir()]
    assert 160 < max(steps) < 320

    resumed = job.run(*options)
    assert f"going on from checkpoint-{max(steps):012d}-" in resumed.stdout
    assert same(uninterrupted, weights(job))


def test_a_checkpoint_of_another_architecture_is_one_line_and_is_kept(job):
    import torch

    from byoc_training.checkpoint import Checkpoints

    job.checkpoints.mkdir()
    other = torch.nn.Sequential(torch.nn.Linear(784, 10))
    state = {"epoch": 1, "step": 3, "history": [], "model": other.state_dict(), "optimizer": {}}
    written = Checkpoints(job.checkpoints, "checkpoint").save(3, state)
    done = job.run("--epochs", "1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        f"train.py: the checkpoint in {job.checkpoints} does not fit this program's model: "
    )
    assert list(job.checkpoints.iterdir()) == [written]
    assert not job.model.exists()


def test_a_full_disk_while_saving_is_one_line_and_leaves_no_model(job):
    job.model.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(job.model)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        done = job.run("--epochs", "1")
        left = sorted(p.name for p in job.model.iterdir())
    finally:
        subprocess.run(["umount", str(job.model)], check=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"train.py: cannot write {job.model}/model.pth (")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert left == ["code"]


@pytest.mark.slow
@pytest.mark.contract(51)
def test_ranks_share_every_batch_and_reach_the_same_losses(job):
    curves = {}
    for count in (1, 2, 4):
        shutil.rmtree(job.root, ignore_errors=True)
        job.root.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        command = [sys.executable, *launcher, *job.command("--epochs", "6")[1:]]
        done = subprocess.run(
            command, env=job.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        # Every metric once, whatever the number of ranks.
        assert done.stdout.count("epoch=1;") == 1
        lines = (job.root / "output" / "metrics.jsonl").read_text().splitlines()
        curves[count] = [json.loads(line)["train_loss"] for line in lines]
    for count in (2, 4):
        # Other neurons are dropped, and sums are rounded otherwise.
        assert curves[count] == pytest.approx(curves[1], rel=0.25, abs=0.05), curves


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "(it is empty or missing)"),
        (lambda folder: (folder / "notes.txt").touch(), "(it holds notes.txt)"),
    ],
    ids=["empty", "other-files"],
)
@pytest.mark.contract(30)
def test_a_channel_without_the_files_is_one_line(job_on, tmp_path, prepare, message):
    folder = tmp_path / "channel"
    folder.mkdir()
    prepare(folder)
    done = job_on(folder).run()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in {folder}" in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "model").exists()


def test_no_channel_at_all_is_one_clear_line(job):
    environment = {k: v for k, v in job.environment.items() if k != "SM_CHANNEL_TRAINING"}
    done = subprocess.run(
        job.command(), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == "train.py: error: no training data: give the job a channel called training"


@pytest.mark.parametrize(
    ("option", "value"), [("--epochs", "0"), ("--batch-size", "-1"), ("--lr", "fast")]
)
def test_a_wrong_hyperparameter_is_named(job, option, value):
    done = job.run(option, value)
    assert done.returncode == 2
    assert option in done.stderr.splitlines()[-1]
    assert not Path(job.model).exists()


def test_a_test_channel_of_its_own_is_used_when_there_is_one(job, few_digits, tmp_path):
    for split, folder in (("train", "a"), ("t10k", "b")):
        (tmp_path / folder).mkdir()
        for path in few_digits.glob(f"{split}-*"):
            shutil.copy(path, tmp_path / folder)
    done = job.run("--training", str(tmp_path / "a"), "--test", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    assert "/100 (" in done.stdout
