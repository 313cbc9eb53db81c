"""A model that hangs: its request is answered, its process replaced, the others go on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

#: Hangs as code in C does: no signal that Python could handle ends it.
HANDLER = """
    import os, pathlib, signal, time
    import torch
    GATE = pathlib.Path(os.environ["GATE"])
    def model_fn(model_dir): return torch.nn.Identity()
    def predict_fn(data, model):
        if data.sum() == 99:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            (GATE / "hangs").touch()
            while True:
                time.sleep(0.01)
        return data * 0 + os.getpid()
    def output_fn(prediction, accept):
        import json
        return json.dumps(prediction.long().tolist()), "application/json"
"""


@pytest.mark.contract(72)
def test_model_that_hangs_is_replaced_and_its_neighbours_are_answered(own_models, tmp_path):
    models = own_models(GATE=str(tmp_path), BYOC_FORWARD_TIMEOUT_SECONDS="5")
    for name in ("hangs", "other"):
        assert models.load(name, models.write(HANDLER)).status == 200
    hanging, other = models.pid("hangs"), models.pid("other")
    with ThreadPoolExecutor(2) as pool:
        hung = pool.submit(models.invoke, "hangs", "[[99]]")
        models.server.wait_until((tmp_path / "hangs").exists)
        behind = pool.submit(models.invoke, "hangs", "[[1]]")
        assert models.pid("other") == other
        assert hung.result().status == 504
        assert "5 s (BYOC_FORWARD_TIMEOUT_SECONDS)" in hung.result().error
        # It waited behind, and never was inside the process that hung.
        assert behind.result().status == 200
        assert behind.result().json != [[hanging]]
    assert models.names() == ["hangs", "other"]
    assert models.pid("other") == other
    ping = models.server.ping()
    assert ping is not None
    assert ping.status == 200
    assert "model hangs hangs: a batch has been running for more than 5 s" in models.server.log
    page = models.server.request("GET", "/metrics").body.decode()
    assert 'byoc_model_restarts_total{model="hangs"} 1.0' in page
    assert 'byoc_model_restarts_total{model="other"} 0.0' in page


@pytest.mark.contract(72, 82)
def test_model_that_hangs_can_be_unloaded(own_models, tmp_path, named):
    models = own_models(GATE=str(tmp_path), BYOC_FORWARD_TIMEOUT_SECONDS="5")
    assert models.load("hangs", models.write(HANDLER)).status == 200
    with ThreadPoolExecutor(2) as pool:
        hung = pool.submit(models.invoke, "hangs", "[[99]]")
        models.server.wait_until((tmp_path / "hangs").exists)
        assert models.delete("hangs").status == 200
        assert hung.result().status == 504
    assert named("byoc-model", models.server.process.pid) == []
