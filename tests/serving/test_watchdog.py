"""Inline: a model that hangs, or whose device failed, is answered for and its worker replaced."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

HANDLER = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path(os.environ["GATE"])
    def model_fn(model_dir): return torch.nn.Identity()
    def predict_fn(data, model):
        if data[0, 0] == 99:
            (GATE / "hangs").touch()
            while True:
                time.sleep(0.01)
        if data[0, 0] == 55:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return model(data)
"""


@pytest.mark.contract(72)
def test_worker_whose_model_hangs_or_lost_its_device_is_replaced(
    start, model_root, tmp_path, front
):
    server = start(
        model_root(HANDLER),
        GATE=str(tmp_path),
        BYOC_FRONT=front,
        BYOC_TOPOLOGY="inline",
        BYOC_FORWARD_TIMEOUT_SECONDS="5",
    ).wait_ready()
    (first,) = server.workers()
    with ThreadPoolExecutor(2) as pool:
        hangs = pool.submit(server.invoke, "[[99]]")
        server.wait_until((tmp_path / "hangs").exists)
        behind = pool.submit(server.invoke, "[[1]]")
        assert hangs.result().status == 504
        assert "5 s (BYOC_FORWARD_TIMEOUT_SECONDS)" in hangs.result().error
        assert behind.result().status == 503
        assert "hangs" in behind.result().error
    server.wait_until(lambda: first not in server.workers(), 60)
    server.wait_ready()
    assert "the model hangs" in server.log
    assert server.invoke("[[2]]").json == [[2.0]]
    (second,) = server.workers()
    lost = server.invoke("[[55]]")
    assert (lost.status, lost.json["error"]["code"]) == (503, "device_failed")
    server.wait_until(lambda: second not in server.workers(), 60)
    server.wait_ready()
    assert server.invoke("[[3]]").json == [[3.0]]
    assert server.terminate() == 0
