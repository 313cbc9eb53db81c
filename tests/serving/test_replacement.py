"""A worker that crashed while the cause that keeps its successor from loading lasts."""

from __future__ import annotations

import http.client

import pytest

HANDLER = """
import os
from pathlib import Path

def model_fn(model_dir):
    if (Path(model_dir).parent / "broken").exists():
        raise RuntimeError("the volume is away")
    return lambda x: x

def predict_fn(data, model):
    if float(data[0, 0]) == 66:
        os.kill(os.getpid(), 9)
    return data
"""


@pytest.mark.contract(72)
def test_replacement_that_cannot_load_does_not_end_a_server_that_serves(start, model_root, front):
    root = model_root(HANDLER)
    server = start(
        root, SAGEMAKER_MODEL_SERVER_WORKERS="2", BYOC_FRONT=front, BYOC_TOPOLOGY="inline"
    ).wait_ready()
    (root / "broken").touch()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        server.invoke("[[66]]")
    server.wait_until(lambda: "cannot load, the others go on: " in server.log)
    assert "the volume is away" in server.log
    assert "Traceback" not in server.log
    for _ in range(20):
        ping = server.ping()
        assert ping is not None
        assert ping.status == 200
        assert server.invoke("[[1]]").json == [[1.0]]
    (root / "broken").unlink()
    server.wait_until(lambda: len(server.workers()) == 2, 60)
    assert server.invoke("[[1]]").json == [[1.0]]
    assert server.terminate() == 0
