"""The training image under the conditions of the platform."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.images.conftest import Docker

SAVE = """
import os, sys, torch
print("training on", torch.cuda.device_count(), "GPUs", sys.argv[1:])
torch.save({"w": torch.ones(3)}, os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
"""


def program(root: Path, text: str, name: str = "job.py") -> None:
    """Put a user's program into the `code` channel and name it."""
    code = root / "input/data/code"
    code.mkdir(parents=True, exist_ok=True)
    (code / name).write_text(text)
    with tarfile.open(code / "sourcedir.tar.gz", "w:gz") as archive:
        archive.add(code / name, name)
    (code / name).unlink()
    config = root / "input/config/hyperparameters.json"
    parameters = json.loads(config.read_text())
    parameters["sagemaker_program"] = json.dumps(name)
    parameters["sagemaker_submit_directory"] = json.dumps(
        "/opt/ml/input/data/code/sourcedir.tar.gz"
    )
    config.write_text(json.dumps(parameters))


def mounted(root: Path) -> tuple[str, str]:
    return ("--volume", f"{root}:/opt/ml")


@pytest.mark.contract(1, 14, 40)
def test_job_without_network_trains_a_user_program(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml({"epochs": "2"})
    program(root, SAVE)
    done = docker.run(training_image, "train", options=(*mounted(root), "--network", "none"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "['--epochs', '2']" in done.stdout
    assert [path.name for path in (root / "model").iterdir()] == ["model.pth"]
    assert not (root / "output/failure").exists()


@pytest.mark.contract(2)
def test_replaced_entry_point_without_arguments_trains(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml()
    program(root, SAVE)
    done = docker(
        "run", "--rm", "--name", docker.name(), *mounted(root), "--entrypoint", "train",
        training_image,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "model/model.pth").is_file()


@pytest.mark.contract(44)
def test_default_command_trains(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml()
    program(root, SAVE)
    done = docker.run(training_image, options=mounted(root))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "model/model.pth").is_file()


@pytest.mark.contract(15, 92)
def test_read_only_root_and_a_random_user_are_enough(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml()
    program(root, SAVE)
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    done = docker.run(
        training_image,
        "train",
        options=(*mounted(root), "--read-only", "--tmpfs", "/tmp", "--user", "12345:54321"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "model/model.pth").is_file()


@pytest.mark.contract(6, 9)
def test_exception_of_the_program_is_the_failure_text(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml()
    program(root, "raise ValueError('the learning rate is a fish')")
    done = docker.run(training_image, "train", options=mounted(root))
    assert done.returncode == 1
    failure = (root / "output/failure").read_text()
    assert "the learning rate is a fish" in failure[:200]
    assert len(failure) <= 1024


@pytest.mark.contract(12)
def test_real_out_of_memory_kill_ends_with_137_and_says_so(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml()
    program(root, "blocks = []\nwhile True:\n    blocks.append(bytearray(b'x' * 16_000_000))\n")
    done = docker.run(
        training_image,
        "train",
        options=(*mounted(root), "--memory", "300m", "--memory-swap", "300m"),
    )
    assert done.returncode == 137, done.stdout + done.stderr
    assert "out of memory" in (root / "output/failure").read_text()[:200].lower()


@pytest.mark.contract(10)
def test_program_saves_after_sigterm_to_process_one(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    root = opt_ml()
    program(
        root,
        """
import os, pathlib, signal, sys
def stop(*_):
    pathlib.Path(os.environ["SM_MODEL_DIR"], "saved").write_text("on the way out")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready to be stopped", flush=True)
signal.pause()
""",
    )
    name = docker.start(training_image, "train", options=mounted(root))
    wait_for_log(docker, name, "ready to be stopped")
    docker("stop", "--time", "110", name, check=True)
    assert docker.wait(name) == 0
    assert (root / "model/saved").read_text() == "on the way out"


def wait_for_log(docker: Docker, name: str, text: str) -> None:
    import subprocess

    with subprocess.Popen(
        [docker.cli, "logs", "--follow", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as logs:  # fmt: skip
        assert logs.stdout is not None
        found = any(text in line for line in logs.stdout)
        logs.terminate()
    assert found, docker.logs(name)


@pytest.mark.contract(42)
def test_source_code_driver_of_the_current_client_trains(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path]
) -> None:
    # The shape of what the SDK starts: bash, chmod, a script that finds python3 and pip3.
    root = opt_ml(channels={"code": {"train.py": SAVE}, "sm_drivers": {}})
    (root / "input/data/sm_drivers/sm_train.sh").write_text(
        """
#!/bin/bash
set -e
command -v python3 && command -v pip3
export SM_MODEL_DIR=/opt/ml/model
printf 'export SM_PROBE=1\\n' > /opt/ml/input/sm_training.env
source /opt/ml/input/sm_training.env
cd /opt/ml/input/data/code
torchrun --nnodes=1 --nproc_per_node=1 train.py
"""
    )
    drivers = "/opt/ml/input/data/sm_drivers"
    done = docker(
        "run", "--rm", "--name", docker.name(), *mounted(root), "--entrypoint", "/bin/bash",
        training_image, "-c", f"chmod +x {drivers}/sm_train.sh && {drivers}/sm_train.sh",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "model/model.pth").is_file()
