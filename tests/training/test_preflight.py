from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from byoc_training import devices, environment, preflight, versions
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
        efa: int = 0,
        environ: dict[str, str] | None = None,
        cluster: dict[str, Any] | None = None,
        **changed: tuple[int, int],
    ) -> list[str]:
        job.config(
            "resourceconfig",
            cluster
            or {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": instance},
        )
        (tmp_path / "torch").mkdir(exist_ok=True)
        (tmp_path / "torch" / "version.py").write_text(
            f"__version__ = '2'\ncuda: Optional[str] = '{cuda}'\n"
        )
        sizes.update(
            {{"shm": preflight.SHM, "root": str(job.root)}[k]: v for k, v in changed.items()}
        )
        machine = devices.Devices(2, ("GPU",) * gpus, ("lo",), "lo", efa=efa, driver=driver)
        found = environment.read(Paths(job.root), {}, machine, Console())
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", statvfs)
            patched.setattr(sys, "path", [str(tmp_path)])
            patched.setattr(preflight, "_PLUGIN_FOLDERS", (str(tmp_path / "plugin"),))
            for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "NCCL_NET_PLUGIN"):
                patched.delenv(name, raising=False)
            for name, value in (environ or {}).items():
                patched.setenv(name, value)
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

    assert versions.torch_cuda() == torch.version.cuda
    found = versions.installed(("torch", "nvidia_nccl", "nvidia_cudnn", "nothing"))
    assert list(found) == ["torch", "nvidia_nccl", "nvidia_cudnn"]
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]


@pytest.mark.parametrize("instance", ["ml.p5.48xlarge", "local_gpu"])
def test_types_that_have_gpus(warned, instance):
    assert warned(instance)[0].startswith(f"{instance} has GPUs and none")
    assert warned(instance, gpus=1, driver="535.54.03") == []


def test_the_type_of_the_group_counts_where_the_host_s_own_is_left_out(warned):
    group = {"instance_group_name": "a", "instance_type": "ml.p4d.24xlarge", "hosts": ["algo-1"]}
    cluster = {
        "current_host": "algo-1",
        "hosts": ["algo-1"],
        "current_group_name": "a",
        "instance_groups": [group],
    }
    assert warned(cluster=cluster)[0].startswith("ml.p4d.24xlarge has GPUs and none")


def test_gpus_that_a_variable_asks_for(warned):
    (line,) = warned(environ={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert line.startswith("CUDA_VISIBLE_DEVICES=0,1 asks for GPUs and none is visible here")
    assert warned(environ={"CUDA_VISIBLE_DEVICES": ""}) == []
    assert warned(environ={"CUDA_VISIBLE_DEVICES": "-1"}) == []


@pytest.mark.parametrize("value", ["", "-1"])
def test_gpus_that_a_variable_hides(warned, value):
    (line,) = warned(
        "ml.g5.xlarge", gpus=4, driver="535.54.03", environ={"CUDA_VISIBLE_DEVICES": value}
    )
    assert line.startswith(f"CUDA_VISIBLE_DEVICES={value!r} hides all 4 GPUs")


def test_more_ranks_than_gpus(warned, job):
    job.hyperparameters(byoc_launcher="torchrun", byoc_processes_per_host="8")
    (line,) = warned("ml.g5.12xlarge", gpus=4, driver="535.54.03")
    assert line.startswith("byoc_processes_per_host is 8 and this host has 4 GPUs")
    assert warned("ml.g5.48xlarge", gpus=8, driver="535.54.03") == []


def test_an_old_driver_is_fine_with_the_forward_compatibility_libraries(warned, tmp_path):
    (tmp_path / "compat").mkdir()
    environ = {"LD_LIBRARY_PATH": f"{tmp_path / 'compat'}:/usr/lib"}
    arguments = {"gpus": 1, "driver": "470.57.02", "environ": environ}
    assert "too old" in warned("ml.p4d.24xlarge", **arguments)[0]
    (tmp_path / "compat" / "libcuda.so.1").touch()
    assert warned("ml.p4d.24xlarge", **arguments) == []


@pytest.mark.contract(52)
def test_efa_devices_without_nccl_s_plug_in(warned, job, tmp_path):
    job.hyperparameters(byoc_launcher="torchrun")
    cluster = {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]}
    arguments: dict[str, Any] = {"gpus": 8, "driver": "570.86.15", "efa": 4}
    (line,) = warned(cluster=cluster, **arguments)
    assert line.startswith("4 EFA devices and no NCCL plug-in for them")
    assert warned(**arguments) == []
    assert warned(cluster=cluster, environ={"NCCL_NET_PLUGIN": "x.so"}, **arguments) == []
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "libnccl-net.so").touch()
    assert warned(cluster=cluster, **arguments) == []


def test_the_report_names_what_decides_a_run(job):
    import torch

    job.config(
        "resourceconfig",
        {"current_host": "b", "hosts": ["c", "b", "a"], "current_instance_type": "ml.m5.large"},
    )
    job.channel("train", a="12345")
    job.channel("empty")
    found = environment.read(Paths(job.root), {}, devices.detect(), Console())
    text = "\n".join(preflight.lines(found))
    for words in (
        f"Python {'.'.join(map(str, sys.version_info[:3]))}",
        f"torch {torch.__version__.split('+')[0]}",
        f"CUDA {torch.version.cuda}, cuDNN ",
        "NCCL 2.",
        "host b, rank 1 of 3, ml.m5.large: ",
        "hosts a, b, c",
        "channel train: 1 file, 5 bytes, in ",
        "channel empty: 0 files, 0 bytes, in ",
    ):
        assert words in text, words


def test_a_mount_that_does_not_answer_delays_nothing(job, monkeypatch):
    """A real one blocks in the kernel; this one does in the call itself, for as long."""
    job.channel("dead", a="1")
    job.channel("well", a="1")
    found = environment.read(Paths(job.root), {}, devices.detect(), Console())
    released = threading.Event()
    asked: list[str] = []
    scandir, statvfs = os.scandir, os.statvfs

    def blocking(call: Any) -> Any:
        def blocked(path: Any) -> Any:
            if "dead" in str(path) or call is statvfs:
                asked.append(str(path))
                released.wait(60)
            return call(path)

        return blocked

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", blocking(scandir))
        patched.setattr(os, "statvfs", blocking(statvfs))
        report = "\n".join([*preflight.lines(found), *preflight.warnings(found)])
        # Nobody has waited for the answers.
        assert not released.is_set()
        released.set()
    assert any("dead" in path for path in asked)
    assert "channel dead: " in report
    assert "has not answered within" in report
    assert "channel well: 1 file, 1 byte" in report


def test_a_large_channel_is_counted_as_far_as_time_goes(job, monkeypatch):
    folder = job.channel("large")
    for number in range(300):
        (folder / str(number)).write_text("xy")
    found = environment.read(Paths(job.root), {}, devices.detect(), Console()).channels["large"]
    assert found.describe(60) == f"channel large: 300 files, 600 bytes, in {folder}"
    assert found.describe(0) == f"channel large: at least 0 files, 0 bytes, in {folder}"


def test_a_model_folder_that_takes_nothing_ends_the_job_before_it_starts(job):
    """A full disk: a file system of its own, of the smallest size."""
    model = job.root / "model"
    model.mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c",
         f'mount -t tmpfs -o size=4k none {model} && echo > {model}/x && exec "$0" "$@"',
         sys.executable, "-m", "byoc_training.main"],
        env=job.variables(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "train: " not in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 74, done.stderr
    assert f"cannot write in {model}: No space left on device" in job.failure.read_text()
    assert "starting" not in done.stderr
