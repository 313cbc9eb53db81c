from __future__ import annotations

import os
import sys
import threading
import time
import types

import pytest

from byoc_training import system_metrics
from byoc_training.system_metrics import Machine, Sampler


def test_a_busy_processor_is_seen():
    machine = Machine()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    sample = machine.sample()
    assert 1 < sample["cpu_percent"] <= 100
    assert 2**20 < sample["memory_bytes"] < 2**50
    assert 0 < sample["memory_percent"] <= 100


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The kernel's files, as given."""

    def make(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(system_metrics, "_CGROUPS", tmp_path)
    monkeypatch.setattr(system_metrics, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    make.clock = clock  # type: ignore[attr-defined]
    return make


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        # 4 s of 8 processors' 10 s each
        (
            {"cpu_dot_stat": "usage_usec 1000000\nuser_usec 7\n"},
            {"cpu_dot_stat": "usage_usec 5000000\nuser_usec 9\n"},
            5.0,
        ),
        # two processors by quota
        (
            {"cpu_dot_stat": "usage_usec 0\n", "cpu_dot_max": "200000 100000\n"},
            {"cpu_dot_stat": "usage_usec 5000000\n"},
            25.0,
        ),
        ({"cpu_dot_stat": "usage_usec 0\n", "cpu_dot_max": "max 100000\n"}, {}, 0.0),
        (
            {"cpuacct__cpuacct_dot_usage": "0\n", "cpu__cpu_dot_cfs_quota_us": "-1\n"},
            {"cpuacct__cpuacct_dot_usage": "8000000000\n"},
            10.0,
        ),
        (
            {
                "cpuacct__cpuacct_dot_usage": "0\n",
                "cpu__cpu_dot_cfs_quota_us": "400000\n",
                "cpu__cpu_dot_cfs_period_us": "100000\n",
            },
            {"cpuacct__cpuacct_dot_usage": "8000000000\n"},
            20.0,
        ),
        # the machine's, in hundredths of a second: idle and waiting are not busy
        (
            {"stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 1 1\n"},
            {"stat": "cpu  100 100 100 5000 2600 50 50 0 7 7\ncpu0 1 1\n"},
            5.0,
        ),
    ],
    ids=["v2", "v2-quota", "v2-idle", "v1", "v1-quota", "machine"],
)
def test_the_kernel_s_books_are_read(kernel, monkeypatch, before, after, percent):
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    kernel(**before)
    machine = Machine()
    kernel(**after)
    kernel.clock[0] += 10
    assert machine.sample()["cpu_percent"] == percent


def test_the_sampler_looks_now_and_then_and_once_at_the_end():
    samples: list[dict[str, float]] = []
    three = threading.Event()

    def take(sample: dict[str, float]) -> None:
        samples.append(sample)
        if len(samples) == 3:
            three.set()

    sampler = Sampler(take, 0.01)
    assert three.wait(30)
    sampler.close()
    assert not [one for one in threading.enumerate() if one.name == "system-metrics"]
    count = len(samples)

    short = Sampler(samples.append, 3600)
    short.close()
    assert len(samples) == count + 1
    assert samples[-1]["memory_bytes"] > 0


class NoLongerThereError(Exception):
    """What the driver's library raises."""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """NVIDIA's library with two GPUs, of which the second has gone."""
    nvml = types.ModuleType("pynvml")
    calls: list[str] = []

    def rates(handle: int) -> types.SimpleNamespace:
        if handle:
            raise NoLongerThereError
        return types.SimpleNamespace(gpu=87, memory=5)

    members = {
        "NVMLError": NoLongerThereError,
        "nvmlInit": lambda: calls.append("init"),
        "nvmlShutdown": lambda: calls.append("shutdown"),
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUtilizationRates": rates,
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(used=2**30),
    }
    for name, member in members.items():
        setattr(nvml, name, member)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(system_metrics, "_NVIDIA", tmp_path / "nvidiactl")
    return nvml, calls


def test_gpus_are_read_and_one_that_has_gone_is_left_out(driver):
    _, calls = driver
    machine = Machine()
    for _ in range(2):
        sample = machine.sample()
        assert (sample["gpu_0_percent"], sample["gpu_0_memory_bytes"]) == (87, 2**30)
        assert not [name for name in sample if name.startswith("gpu_1")]
    machine.close()
    assert calls == ["init", "shutdown"]


def test_a_driver_that_does_not_work_means_no_gpus(driver, monkeypatch):
    nvml, calls = driver

    def fail() -> None:
        raise NoLongerThereError

    monkeypatch.setattr(nvml, "nvmlInit", fail)
    machine = Machine()
    assert not [name for name in machine.sample() if name.startswith("gpu")]
    machine.close()
    assert calls == []


@pytest.mark.gpu
def test_a_real_gpu_is_sampled():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    ballast = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    sample = Machine().sample()
    assert 0 <= sample["gpu_0_percent"] <= 100
    assert sample["gpu_0_memory_bytes"] >= ballast.nbytes
