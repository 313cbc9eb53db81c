"""Clusters that are large or uneven: sixteen hosts; groups of instances with other GPUs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.training.oracle.configuration import NVIDIA_SMI
from tests.training.test_hosts import cluster  # noqa: F401 - the fixture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.training.conftest import Job
    from tests.training.test_hosts import Cluster

#: Sixteen interpreters import torch.distributed on however few processors there are.
MANY_SECONDS = 300.0


@pytest.mark.contract(25)
@pytest.mark.slow
def test_sixteen_hosts_agree_on_their_ranks(cluster):  # noqa: F811 - the fixture
    """Rendezvous only: nobody needs torch but torchrun."""
    made = cluster(16, "")
    for job in made.jobs.values():
        job.environ["BYOC_HOSTS_TIMEOUT_SECONDS"] = "120"
    names = sorted(made.jobs)
    assert names[:3] == ["127.0.0.1", "127.0.0.10", "127.0.0.11"]
    results = made.finish(made.start(), MANY_SECONDS)
    assert {result.code for result in results.values()} == {0}, results
    for rank, name in enumerate(names):
        assert json.loads(results[name].stdout) == [rank, 16, name]
        assert results[name].failure is None
        assert "all 16 hosts are there" in results[name].stderr


A, B, C = "127.0.0.1", "127.0.0.2", "127.0.0.3"
#: In no order, as the platform has them.
GROUPS: list[dict[str, Any]] = [
    {"instance_group_name": "data", "instance_type": "ml.c5.18xlarge", "hosts": [B]},
    {"instance_group_name": "gpus", "instance_type": "ml.p4d.24xlarge", "hosts": [C, A]},
]
SEEN = """
seen = {name: os.environ[f"SM_{name}"] for name in (
    "CURRENT_INSTANCE_GROUP", "CURRENT_INSTANCE_TYPE", "CURRENT_INSTANCE_GROUP_HOSTS",
    "INSTANCE_GROUPS", "IS_HETERO", "DISTRIBUTION_INSTANCE_GROUPS", "NUM_GPUS", "MASTER_ADDR")}
os.write(1, ("seen " + json.dumps(seen) + "\\n").encode())
"""
#: Of a host that has no part in the process group.
ALONE = 'import os\nos.environ.setdefault("RANK", "-1"); os.environ.setdefault("WORLD_SIZE", "0")\n'


def group_of(name: str) -> dict[str, Any]:
    return next(group for group in GROUPS if name in group["hosts"])


def heterogeneous(made: Cluster, tools: Path, **hyperparameters: str) -> None:
    """Two groups over three hosts: the one of GPUs has two of them on each host."""
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI.format(count=2))
    (tools / "nvidia-smi").chmod(0o755)
    for name, job in made.jobs.items():
        group = group_of(name)
        job.config(
            "resourceconfig",
            {
                "current_host": name,
                "hosts": [C, B, A],
                "current_instance_type": group["instance_type"],
                "current_group_name": group["instance_group_name"],
                "instance_groups": GROUPS,
            },
        )
        job.hyperparameters(**hyperparameters)
        with_probe(job)
        if group["instance_group_name"] == "gpus":
            job.environ["PATH"] = f"{tools}:{job.variables()['PATH']}"


def with_probe(job: Job) -> None:
    path = job.root / "code/train.py"
    path.write_text(ALONE + path.read_text() + SEEN)


def ranks_and_views(stdout: str) -> tuple[list[list[Any]], dict[str, str]]:
    lines = stdout.splitlines()
    views = [json.loads(line[5:]) for line in lines if line.startswith("seen ")]
    assert all(view == views[0] for view in views)
    return sorted(json.loads(line) for line in lines if line.startswith("[")), views[0]


@pytest.mark.slow
def test_all_groups_train_together_each_host_with_its_own_number_of_processes(
    cluster,  # noqa: F811 - the fixture
    tmp_path,
):
    made = cluster(3, "")
    heterogeneous(made, tmp_path / "tools", byoc_launcher="torchrun")
    results = made.finish(made.start())
    assert [result.code for result in results.values()] == [0, 0, 0], results
    seen = {name: ranks_and_views(result.stdout) for name, result in results.items()}
    assert seen[A][0] == [[0, 5, A], [1, 5, A]]
    assert seen[B][0] == [[2, 5, B]]
    assert seen[C][0] == [[3, 5, C], [4, 5, C]]
    for name, (_, view) in seen.items():
        group = group_of(name)
        assert view == {
            "CURRENT_INSTANCE_GROUP": group["instance_group_name"],
            "CURRENT_INSTANCE_TYPE": group["instance_type"],
            "CURRENT_INSTANCE_GROUP_HOSTS": json.dumps(
                sorted(group["hosts"]), separators=(",", ":")
            ),
            "INSTANCE_GROUPS": '["data","gpus"]',
            "IS_HETERO": "true",
            "DISTRIBUTION_INSTANCE_GROUPS": '["data","gpus"]',
            "NUM_GPUS": "0" if name == B else "2",
            "MASTER_ADDR": A,
        }


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["byoc_launcher", "sagemaker_torch_distributed_enabled"])
def test_only_the_named_groups_train_together_and_the_others_run_alone(
    cluster,  # noqa: F811 - the fixture
    tmp_path,
    switch,
):
    """SDK v2 gives its `distribution` to some groups; the others serve data, for instance."""
    made = cluster(3, "")
    heterogeneous(
        made,
        tmp_path / "tools",
        sagemaker_distribution_instance_groups='["gpus"]',
        **{switch: "torchrun" if switch == "byoc_launcher" else "true"},
    )
    began = time.monotonic()
    results = made.finish(made.start())
    assert [result.code for result in results.values()] == [0, 0, 0], results
    # Nobody has waited for the host that has no part in it.
    assert time.monotonic() - began < 40
    seen = {name: ranks_and_views(result.stdout) for name, result in results.items()}
    assert seen[A][0] == [[0, 4, A], [1, 4, A]]
    assert seen[B][0] == [[-1, 0, B]]
    assert seen[C][0] == [[2, 4, C], [3, 4, C]]
    assert {view["DISTRIBUTION_INSTANCE_GROUPS"] for _, view in seen.values()} == {'["gpus"]'}
    assert "(Python script, direct)" in results[B].stderr
