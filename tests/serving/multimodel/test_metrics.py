"""What ``/metrics`` and the access log say of several models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models

HANDLER = """
    import os, torch
    def model_fn(model_dir): return torch.nn.Identity()
    def predict_fn(data, model):
        if data.sum() == 66:
            os._exit(7)
        if data.sum() == 55:
            raise RuntimeError("told to")
        return data
"""


def samples(models: Models) -> dict[str, float]:
    """The page, read as Prometheus reads it: ``name{labels}`` to value."""
    from prometheus_client.parser import text_string_to_metric_families

    page = models.server.request("GET", "/metrics").body.decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def test_page_shows_models_their_requests_and_their_processes(own_models):
    models = own_models(BYOC_METRICS_MODELS="2", BYOC_ACCESS_LOG="1", BYOC_MAX_MODELS="3")
    long = "a" * 1000
    for name in (long, "second", "third"):
        assert models.load(name, models.write(HANDLER)).status == 200
    assert models.load("fourth").status == 507
    assert models.load("third").status == 409
    for _ in range(3):
        assert models.invoke("second").status == 200
    assert models.invoke("second", "[[").status == 400
    assert models.invoke("second", "[[55]]").status >= 400
    assert models.invoke("second", "[[66]]").status == 500
    assert models.invoke("third").status == 200
    assert models.invoke("unknown").status == 404

    # After its second crash the model comes back in a moment.
    models.server.wait_until(lambda: samples(models)["byoc_models{state=ready}"] == 3)
    page = samples(models)
    assert page["byoc_models{state=loading}"] == 0
    assert page["byoc_model_loads_total{result=loaded}"] == 3
    assert page["byoc_model_loads_total{result=insufficient_memory}"] == 1
    assert page["byoc_model_unloads_total"] == 0
    # Only the first two have lines of their own.
    assert page["byoc_models_unlisted"] == 1
    assert not any("model=third" in key or "unknown" in key for key in page)
    assert page["byoc_model_requests_total{model=second,outcome=ok}"] == 3
    errors = sum(
        page.get(f"byoc_model_requests_total{{model=second,outcome={kind}}}", 0)
        for kind in ("client_error", "server_error")
    )
    assert errors == 3
    assert page["byoc_model_predict_seconds_total{model=second}"] > 0
    assert page["byoc_model_in_flight{model=second}"] == 0
    # The one that was inside is asked again, and ends the second process too.
    assert page["byoc_model_restarts_total{model=second}"] == 2
    assert page["byoc_worker_restarts_total"] == 2
    assert 1e6 < page["byoc_model_memory_bytes{model=second}"] < 1e9
    labels = {m[1] for key in page if (m := re.match(r".*[{,]model=(a[^,}]*)", key))}
    assert [len(label) for label in labels] == [128]
    # What all processes have done is in the server's histograms, as with a single model.
    answered = 6
    assert page["byoc_batch_size_requests_count"] == answered
    assert page["byoc_predict_duration_seconds_count"] == answered
    assert page["byoc_queue_wait_seconds_count"] == answered
    assert page["byoc_request_body_bytes_count"] >= answered
    assert page["byoc_response_body_bytes_count"] >= answered
    key = "byoc_requests_total{route=/models/{name}/invoke,status=200}"
    assert page[key] == 4

    assert models.delete("second").status == 200
    page = samples(models)
    assert page["byoc_model_unloads_total"] == 1
    assert not any("model=second" in key for key in page)
    # Its place is the next one's.
    assert page["byoc_model_requests_total{model=third,outcome=ok}"] == 1
    assert page["byoc_models_unlisted"] == 0
    models.server.wait_until(
        lambda: re.search(
            r"POST /models/third/invoke 200 .*queue_ms=\S+ predict_ms=\S+ batch=1",
            models.server.log,
        )
    )


def test_requests_that_a_model_has_no_room_for_are_counted(models: Models, probe, held):
    from concurrent.futures import ThreadPoolExecutor

    assert models.load("busy", models.write(probe())).status == 200
    with ThreadPoolExecutor(6) as pool:
        with held(models, "busy"):
            asked = [pool.submit(models.invoke, "busy") for _ in range(6)]
            models.server.wait_until(lambda: sum(future.done() for future in asked) >= 3)
            page = samples(models)
            assert page["byoc_model_in_flight{model=busy}"] == 4
        assert sorted(future.result(60).status for future in asked) == [200] * 3 + [503] * 3
    refused = samples(models).get("byoc_model_requests_total{model=busy,outcome=refused}", 0)
    # Some may have been refused before their model was looked at: the server has a bound as well.
    assert 0 <= refused <= 3


@pytest.mark.parametrize("value", ["0", "1"])
def test_no_lines_of_single_models_are_an_option(own_models, value):
    models = own_models(BYOC_METRICS_MODELS=value)
    assert models.load("one").status == 200
    page = samples(models)
    assert any("model=one" in key for key in page) == (value == "1")
    assert page["byoc_models{state=ready}"] == 1
