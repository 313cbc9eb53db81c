from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from byoc_serving.machine import Machine, cpu_quota, memory_limit, tree_bytes, visible_gpus

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


def files(root: Path, **contents: str) -> Path:
    for name, text in contents.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_cgroup_v2_quota_and_memory_are_honoured(tmp_path):
    files(
        tmp_path,
        proc__self__cgroup="0::/pod/me\n",
        sys__fs__cgroup__pod__me__cpu_dot_max="150000 100000\n",
        sys__fs__cgroup__pod__memory_dot_max=f"{2 * GIB}\n",
        sys__fs__cgroup__pod__me__memory_dot_max="max\n",
        proc__meminfo="MemTotal:       16777216 kB\n",
    )
    assert cpu_quota(tmp_path) == 1.5
    assert memory_limit(tmp_path) == 2 * GIB


def test_cgroup_v1_quota_and_memory_are_honoured(tmp_path):
    files(
        tmp_path,
        proc__self__cgroup="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="300000\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes=f"{GIB}\n",
        proc__meminfo="MemTotal:       16777216 kB\n",
    )
    assert cpu_quota(tmp_path) == 3
    assert memory_limit(tmp_path) == GIB


def test_no_limit_means_the_machine(tmp_path):
    files(
        tmp_path,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__cpu_dot_max="max 100000\n",
        proc__meminfo="MemTotal:       1048576 kB\n",
    )
    assert cpu_quota(tmp_path) is None
    assert memory_limit(tmp_path) == GIB


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, ("0", "1")),
        ("1", ("1",)),
        ("", ()),
        ("-1", ()),
        ("1,0", ("1", "0")),
        ("0,7,1", ("0",)),
        ("GPU-8a1", ("GPU-8a1",)),
    ],
)
def test_visible_gpus_follow_cudas_variable(tmp_path, chosen, seen):
    files(tmp_path, dev__nvidia0="", dev__nvidia1="", dev__nvidiactl="")
    environ = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert visible_gpus(environ, tmp_path) == seen


def test_without_device_nodes_there_is_no_gpu(tmp_path):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path) == ()


def test_workers_are_bounded_by_cores_and_by_memory():
    assert Machine(8, 64 * GIB, ()).workers(10**6) == 8
    assert Machine(8, 4 * GIB, ()).workers(500 * 10**6) == 2
    assert Machine(8, GIB, ()).workers(5 * GIB) == 1
    assert Machine(8, GIB, ("0", "1")).workers(5 * GIB) == 2


def test_tree_bytes_counts_files_and_forgives_a_missing_folder(tmp_path):
    files(tmp_path, a="12345", b__c="123")
    assert tree_bytes(tmp_path) == 8
    assert tree_bytes(tmp_path / "missing") == 0
