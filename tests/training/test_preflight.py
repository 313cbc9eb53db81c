from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from byoc_training import devices, environment, preflight
from byoc_training.console import Console
from byoc_training.paths import Paths


@pytest.fixture
def warned(job, monkeypatch, tmp_path):
    """The warnings for a host; by default there is nothing to warn of."""
    sizes = {preflight.SHM: (2**30, 2**30), str(job.root): (2**36, 2**36)}

    def statvfs(path: Any) -> Any:
        total, left = sizes[str(path)]
        return SimpleNamespace(f_blocks=total, f_bavail=left, f_frsize=1)

    def make(
        instance: str = "local",
        gpus: int = 0,
        driver: str = "",
        cuda: str = "12.8",
        **changed: tuple[int, int],
    ) -> list[str]:
        job.config(
            "resourceconfig",
            {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": instance},
        )
        (tmp_path / "driver").write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue Jan 2\nGCC version: x\n"
        )
        (tmp_path / "torch").mkdir(exist_ok=True)
        (tmp_path / "torch" / "version.py").write_text(
            f"__version__ = '2'\ncuda: Optional[str] = '{cuda}'\n"
        )
        sizes.update(
            {{"shm": preflight.SHM, "root": str(job.root)}[k]: v for k, v in changed.items()}
        )
        machine = devices.Devices(2, ("GPU",) * gpus, ("lo",), "lo")
        found = environment.read(Paths(job.root), {}, machine, Console())
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", statvfs)
            patched.setattr(preflight, "_DRIVER", tmp_path / "driver")
            patched.setattr(sys, "path", [str(tmp_path)])
            return list(preflight.warnings(found))

    return make


def test_a_sound_host_is_not_warned_of(warned):
    assert warned() == []
    assert warned("ml.g5.xlarge", gpus=1, driver="535.54.03") == []
    assert warned("ml.m5.xlarge") == []


def test_gpus_that_are_paid_for_and_absent(warned):
    (line,) = warned("ml.g5.xlarge")
    assert line.startswith("ml.g5.xlarge has GPUs and none is visible here")


@pytest.mark.parametrize(
    ("driver", "cuda", "old"),
    [
        ("470.57.02", "12.8", True),
        ("525.60.13", "12.8", False),
        ("535.54.03", "13.0", True),
        ("580.65.06", "13.0", False),
    ],
)
def test_a_driver_that_is_too_old_is_said_before_the_program_starts(warned, driver, cuda, old):
    lines = warned("ml.g5.xlarge", gpus=1, driver=driver, cuda=cuda)
    assert bool(lines) is old
    if old:
        assert f"driver {driver} is too old for this image's CUDA {cuda}" in lines[0]


@pytest.mark.contract(55)
def test_docker_s_default_of_shared_memory(warned):
    (line,) = warned(shm=(64 * 2**20, 64 * 2**20))
    assert line.startswith("/dev/shm has 64 MiB: DataLoader workers")


def test_little_space(warned):
    (line,) = warned(root=(2**40, 200 * 2**20))
    assert "has 200 MiB free" in line


def test_this_environment_s_torch_is_found():
    import torch

    assert preflight.torch_cuda() == torch.version.cuda
