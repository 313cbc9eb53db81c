"""A job of two containers in a network of their own, named as the platform names them."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.images.test_training import mounted, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.images.conftest import Docker

HOSTS = ("algo-1", "algo-2")
RANK = """
import os, time, torch
import torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
total = torch.tensor([rank + 1.0])
dist.all_reduce(total)
print("sum", total.item(), flush=True)
"""
SAVE = """
if rank == 0:
    torch.save({"sum": total}, os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
dist.destroy_process_group()
"""


@pytest.fixture
def network(docker: Docker) -> Iterator[str]:
    name = f"byoc-test-{uuid.uuid4().hex[:12]}"
    docker("network", "create", name, check=True)
    yield name
    # It cannot go before the containers in it.
    docker.remove()
    docker("network", "rm", name)


@pytest.fixture
def start(
    docker: Docker, training_image: str, opt_ml: Callable[..., Path], network: str
) -> Callable[[str, str], tuple[str, Path]]:
    """Start one host with a program; its container and its folder."""

    def begin(host: str, text: str) -> tuple[str, Path]:
        root = opt_ml({"byoc_launcher": "torchrun"}, name=host)
        program(root, text)
        config = {"current_host": host, "hosts": list(HOSTS), "network_interface_name": "eth0"}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(config))
        options = (*mounted(root), "--network", network, "--network-alias", host)
        return docker.start(training_image, "train", options=options), root

    return begin


def ended(docker: Docker, container: str) -> tuple[int, str]:
    """Exit code and log of a container that comes to its end."""
    code = docker("wait", container, timeout_seconds=120).stdout.strip()
    log = docker("logs", container)
    return int(code), log.stdout + log.stderr


@pytest.mark.contract(25, 48, 49, 51)
def test_a_host_whose_name_comes_late_is_waited_for(docker, start):
    # algo-1 is where they meet; its name does not resolve before it is there.
    second, second_root = start("algo-2", RANK + SAVE)
    time.sleep(15)
    first, first_root = start("algo-1", RANK + SAVE)
    for container in (first, second):
        code, log = ended(docker, container)
        assert code == 0, log
        assert "all 2 hosts are there" in log
        assert "sum 3.0" in log
    assert [path.name for path in (first_root / "model").iterdir()] == ["model.pth"]
    assert list((second_root / "model").iterdir()) == []


@pytest.mark.contract(50)
def test_a_rank_that_dies_ends_both_containers_and_is_named(docker, start):
    text = RANK + "if rank == 1: raise ValueError('shard 7 is empty')\ntime.sleep(600)\n"
    containers = {host: start(host, text) for host in HOSTS}
    results = {host: ended(docker, name) for host, (name, _) in containers.items()}
    failures = {
        host: (root / "output/failure").read_text() for host, (_, root) in containers.items()
    }
    reason = "rank 1 on algo-2: ValueError: shard 7 is empty"
    # 134: after an uncaught exception torch's threads may abort the interpreter's end.
    assert results["algo-2"][0] in (1, 134), results["algo-2"][1]
    assert failures["algo-2"].startswith(reason)
    assert results["algo-1"][0] == 75, results["algo-1"][1]
    assert failures["algo-1"].startswith(f"stopped because algo-2 failed: {reason}")


@pytest.mark.contract(50)
def test_a_container_that_is_killed_ends_the_other_one(docker, start):
    containers = {host: start(host, RANK + "time.sleep(600)\n") for host in HOSTS}
    first, first_root = containers["algo-1"]
    deadline = time.monotonic() + 60
    while "sum 3.0" not in docker("logs", first).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    began = time.monotonic()
    docker("kill", containers["algo-2"][0], check=True)
    code, log = ended(docker, first)
    assert time.monotonic() - began < 60
    assert code == 75, log
    assert "algo-2 ended without a word" in (first_root / "output/failure").read_text()
