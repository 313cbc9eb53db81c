"""Loads and unloads: what fails, what does not fit, and what happens meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models


@pytest.mark.contract(59, 83)
def test_model_that_cannot_load_tells_why_and_harms_nobody(models: Models):
    assert models.load("good").status == 200
    cases = [
        ("def model_fn(model_dir):\n    raise OSError('no weights')\n", 500, "no weights"),
        ("def model_fn(model_dir)\n", 500, "inference.py:1"),
        ("import a_missing_package\ndef model_fn(d): ...\n", 500, "a_missing_package"),
        ("def model_fn(model_dir): return None\n", 500, "returned None"),
        ("import sys\ndef model_fn(model_dir): sys.exit(7)\n", 500, "SystemExit"),
        ("import os\ndef model_fn(model_dir): os._exit(7)\n", 500, "exit code 7"),
        ("import os\ndef model_fn(model_dir): os.abort()\n", 500, "signal 6"),
        ("def model_fn(model_dir): raise MemoryError\n", 507, "memory"),
        ("import torch\ndef model_fn(model_dir): torch.empty(1 << 60)\n", 507, "memory"),
        ("import os\ndef model_fn(model_dir): os.kill(os.getpid(), 9)\n", 507, "killed"),
    ]
    for handler, status, words in cases:
        answer = models.load("bad", models.write(handler))
        assert (answer.status, words in answer.error) == (status, True), (handler, answer.body)
        assert models.names() == ["good"]
        assert models.invoke("good").status == 200
    assert models.load("bad").status == 200


@pytest.mark.contract(83)
def test_too_little_memory_is_507_and_the_server_stays_healthy(models: Models, probe):
    assert models.load("small").status == 200
    url = models.write()
    weights = models.server.root / "models" / Path(url).parts[-2] / "model" / "weights.bin"
    with weights.open("wb") as file:
        # Nothing is written: the size alone decides.
        file.truncate(6 * 1024**3)
    refused = models.load("large", url)
    assert (refused.status, refused.json["error"]["code"]) == (507, "insufficient_memory")
    assert "MiB" in refused.error
    ping = models.server.ping()
    assert ping is not None
    assert ping.status == 200
    assert models.names() == ["small"]
    assert models.invoke("small").status == 200
    assert models.load("other").status == 200
    # Out of memory during a request: SageMaker unloads others and tries again.
    assert models.load("greedy", models.write(probe())).status == 200
    assert models.invoke("greedy", "[[55]]").status == 507
    assert models.invoke("greedy").status == 200


@pytest.mark.contract(83)
def test_memory_is_free_and_the_process_gone_when_the_reply_to_an_unload_arrives(
    models: Models, probe
):
    assert models.load("big", models.write(probe(floats=50_000_000))).status == 200
    pid = models.pid("big")
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = next(int(ln.split()[1]) for ln in rollup.splitlines() if "Private_Dirty" in ln)
    assert private > 190_000
    assert models.delete("big").status == 200
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.contract(82)
def test_two_concurrent_loads_of_one_name_are_one_200_and_one_409(models: Models, probe, gate):
    (gate / "load").unlink()
    url = models.write(probe())
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(models.load, "slow", url)
        models.server.wait_until((gate / "load.reached").exists)
        assert models.load("slow", url).status == 409
        assert models.get("slow").status == 404
        assert models.names() == []
        waiting = pool.submit(models.invoke, "slow")
        # Others come and go meanwhile.
        assert models.load("quick").status == 200
        assert models.invoke("quick").json == [[1.0]]
        assert models.delete("quick").status == 200
        assert not first.done()
        assert not waiting.done()
        (gate / "load").touch()
        assert first.result(60).status == 200
        assert waiting.result(60).status == 200


def test_unload_during_a_load_ends_it(models: Models, probe, gate, named):
    (gate / "load").unlink()
    with ThreadPoolExecutor(2) as pool:
        load = pool.submit(models.load, "slow", models.write(probe()))
        models.server.wait_until((gate / "load.reached").exists)
        assert models.delete("slow").status == 200
        assert load.result(60).status == 503
    assert models.names() == []
    assert named("byoc-model", models.server.process.pid) == []


def test_running_requests_are_answered_before_an_unload_and_new_ones_get_404(
    models: Models, probe, running, held
):
    assert models.load("busy", models.write(probe())).status == 200
    pid = models.pid("busy")
    with ThreadPoolExecutor(1) as pool:
        with held(models, "busy"):
            unload = pool.submit(models.delete, "busy")
            models.server.wait_until(lambda: models.get("busy").status == 404)
            assert models.invoke("busy").status == 404
            assert models.delete("busy").status == 404
            # The name is free again only when the memory is.
            reload = pool.submit(models.load, "busy")
            assert running(pid)
            assert not unload.done()
        assert unload.result(60).status == 200
        assert not running(pid)
        assert reload.result(60).status == 200
