"""A client that leaves: its request is not run, and its place is free."""

from __future__ import annotations

import http.client
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

HANDLER = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path({gate!r})
    def model_fn(model_dir): return torch.nn.Identity()
    def predict_fn(data, model):
        (GATE / f"ran.{{int(data.sum())}}").touch()
        while data.sum() == 99 and not (GATE / "predict").exists():
            time.sleep(0.005)
        return data
"""


@pytest.mark.contract(72)
def test_request_whose_client_has_left_is_not_run(models, gate):
    handler = textwrap.dedent(HANDLER.format(gate=str(gate)))
    server = models.server
    assert models.load("busy", models.write(handler)).status == 200

    def abandoned() -> float:
        page = server.request("GET", "/metrics").body.decode()
        return 'byoc_model_requests_total{model="busy",outcome="abandoned"} 1.0' in page

    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(models.invoke, "busy", "[[99]]")
            server.wait_until((gate / "ran.99").exists)
            leaver = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            headers = {"Content-Type": "application/json"}
            leaver.request("POST", "/models/busy/invoke", "[[1]]", headers)
            server.wait_until(lambda: inside(models) == 2)
            leaver.close()
            server.wait_until(abandoned)
            last = pool.submit(models.invoke, "busy", "[[2]]")
        finally:
            (gate / "predict").touch()
        assert first.result(60).status == 200
        assert last.result(60).status == 200
    assert (gate / "ran.2").exists()
    assert not (gate / "ran.1").exists()
    assert inside(models) == 0
    # Nothing is left to wait for.
    assert models.delete("busy").status == 200


def inside(models) -> int:
    """Requests that the model has."""
    page = models.server.request("GET", "/metrics").body.decode()
    line = next(ln for ln in page.splitlines() if ln.startswith("byoc_model_in_flight{"))
    return int(float(line.split()[-1]))
