"""Processes that die: a model's, the zygote, the front."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models


@pytest.mark.contract(72)
def test_poisoned_request_fails_alone_and_the_model_comes_back(models: Models, probe, held):
    assert models.load("other").status == 200
    assert models.load("fragile", models.write(probe())).status == 200
    before = models.pid("fragile")
    with ThreadPoolExecutor(4) as pool:
        with held(models, "fragile"):
            poisoned = pool.submit(models.invoke, "fragile", "[[66]]")
            neighbours = [pool.submit(models.invoke, "fragile", f"[[{i}]]") for i in range(2)]
        failed = poisoned.result(60)
        assert (failed.status, "signal 9" in failed.error) == (500, True)
        assert [future.result(60).status for future in neighbours] == [200, 200]
    assert models.pid("fragile") != before
    assert models.get("fragile").status == 200
    assert models.names() == ["fragile", "other"]
    assert models.invoke("other").status == 200


@pytest.mark.contract(72)
def test_request_inside_a_killed_process_is_answered_by_the_next_one(
    models: Models, probe, running, held
):
    assert models.load("killed", models.write(probe())).status == 200
    pid = models.pid("killed")
    with held(models, "killed"):
        os.kill(pid, signal.SIGKILL)
        models.server.wait_until(lambda: not running(pid))
    assert models.pid("killed") != pid


@pytest.mark.contract(69, 72)
def test_front_and_zygote_may_die_and_a_stop_answers_what_runs(
    own_models, probe, running, named, held
):
    models = own_models()
    server = models.server
    for name in ("one", "two"):
        assert models.load(name, models.write(probe())).status == 200
    processes = {name: models.pid(name) for name in ("one", "two")}
    # Without the zygote models go on, can be unloaded, and others loaded by its successor.
    (zygote,) = named("byoc-zygote", server.process.pid)
    os.kill(zygote, signal.SIGKILL)
    assert models.load("three", models.write(probe())).status == 200
    assert models.pid("one") == processes["one"]
    assert models.delete("one").status == 200
    assert not running(processes["one"])
    # A new front loads again what the old one had.
    (zygote,) = named("byoc-zygote", server.process.pid)
    front = parent(zygote)
    os.kill(front, signal.SIGKILL)
    server.wait_until(lambda: not running(front))
    server.wait_until(lambda: serves(server), 120)
    assert models.names() == ["three", "two"]
    assert models.pid("two") != processes["two"]
    server.wait_until(lambda: not running(processes["two"]))
    with ThreadPoolExecutor(1) as pool:
        with held(models, "two"):
            other = pool.submit(models.invoke, "three", "[[99]]")
            server.wait_until(lambda: established(server.port) >= 2)
            server.process.send_signal(signal.SIGTERM)
            server.wait_until(lambda: refused(server.port), 10)
            assert server.process.poll() is None
        assert other.result(60).status == 200
    assert server.wait_end(25) == 0
    assert named("byoc-model", server.process.pid) == []
    assert named("byoc-zygote", server.process.pid) == []
    assert "Traceback" not in server.log


@pytest.mark.contract(69)
def test_stop_during_a_load_ends_at_once_with_exit_code_0(own_models, probe, gate, named):
    models = own_models()
    (gate / "load").unlink()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(models.load, "slow", models.write(probe()))
        models.server.wait_until((gate / "load.reached").exists)
        began = time.monotonic()
        assert models.server.terminate() == 0
        assert time.monotonic() - began < 10
        assert load.result(60).status == 503
    assert named("byoc-model", models.server.process.pid) == []


def serves(server) -> bool:
    """Whether ``/ping`` is 200; on a busy machine an answer may also be late."""
    try:
        answer = server.ping()
    except TimeoutError:
        return False
    return answer is not None and answer.status == 200


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def established(port: int) -> int:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(f[1].endswith(f":{port:04X}") and f[3] == "01" for f in fields)


def refused(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    # Reset: the listening socket was closed while this connection was being made.
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False
