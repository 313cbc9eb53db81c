from __future__ import annotations

import os
import time

import pytest

from byoc_training import devices


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in for the driver's command, first on PATH."""

    def make(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


def test_gpus_are_those_that_the_driver_lists(nvidia_smi):
    nvidia_smi('echo "GPU 0: NVIDIA A10G (UUID: a)"; echo "GPU 1: NVIDIA A10G (UUID: b)"')
    assert len(devices.detect().gpus) == 2
    assert devices.detect().gpus[0].startswith("GPU 0: NVIDIA A10G")


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="a real GPU is here")  # noqa: PTH110
@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "kill -9 $$"])
def test_driver_that_fails_means_no_gpu(nvidia_smi, script):
    nvidia_smi(script)
    assert devices.detect().gpus == ()


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="a real GPU is here")  # noqa: PTH110
def test_driver_that_hangs_is_not_waited_for(nvidia_smi, monkeypatch):
    monkeypatch.setattr(devices, "NVIDIA_SMI_SECONDS", 0.3)
    nvidia_smi("exec sleep 60")
    begun = time.monotonic()
    assert devices.detect().gpus == ()
    assert time.monotonic() - begun < 5


def test_default_interface_exists():
    found = devices.detect()
    assert found.default_interface in found.interfaces
    assert found.cpus >= 1


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jan 2\nGCC: 12.2\n",
         "535.54.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n",
         "570.86.15"),
        ("something else\n", ""),
        (None, ""),
    ],
)  # fmt: skip
def test_the_driver_s_version_is_its_module_s(tmp_path, monkeypatch, text, version):
    if text is not None:
        (tmp_path / "version").write_text(text)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    assert devices.detect().driver == version


@pytest.mark.contract(52)
def test_efa_devices_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "EFA_DEVICES", tmp_path / "none")
    assert devices.detect().efa == 0
    monkeypatch.setattr(devices, "EFA_DEVICES", tmp_path)
    for name in ("uverbs0", "uverbs1", "rdma_cm"):
        (tmp_path / name).touch()
    assert devices.detect().efa == 2
