"""``GET /metrics``, read by prometheus-client's own parsers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Page:
    """A page of metrics: samples by name and labels."""

    def __init__(self, families: Any) -> None:
        self.kinds: dict[str, str] = {}
        self.helps: dict[str, str] = {}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in families:
            self.kinds[family.name] = family.type
            self.helps[family.name] = family.documentation
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def labels(self, name: str) -> list[Mapping[str, str]]:
        return [dict(labels) for found, labels in self.samples if found == name]


def scrape(server: Any) -> Page:
    answer = server.request("GET", "/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Page(text_string_to_metric_families(answer.body.decode()))


@pytest.mark.contract(71)
def test_the_page_tells_of_every_answer(shared_server, variant):
    before = scrape(shared_server)
    for _ in range(3):
        assert shared_server.invoke(b"[[1, 2, 3, 4]]").status == 200
    assert shared_server.invoke(b"[[1, 2").status == 400
    assert shared_server.request("GET", "/nothing-here").status == 404
    assert shared_server.ping().status == 200

    def grown() -> Page | None:
        # Answers are counted once they have left, which the client may notice earlier.
        page = scrape(shared_server)
        done = page.value("byoc_requests_total", route="/ping", status="200") > before.value(
            "byoc_requests_total", route="/ping", status="200"
        )
        return page if done else None

    shared_server.wait_until(grown)
    after = scrape(shared_server)

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert more("byoc_requests_total", route="/invocations", status="200") == 3
    assert more("byoc_requests_total", route="/invocations", status="400") == 1
    assert more("byoc_requests_total", route="other", status="404") == 1
    assert more("byoc_request_duration_seconds_count", route="/invocations") == 4
    assert more("byoc_request_duration_seconds_sum", route="/invocations") > 0
    # A model process does not see when a front has queued a request.
    assert more("byoc_queue_wait_seconds_count") == (0 if "isolated" in variant else 3)
    assert more("byoc_batch_size_requests_sum") == 3
    assert 1 <= more("byoc_batch_size_requests_count") <= 3
    assert more("byoc_predict_duration_seconds_count") == more("byoc_batch_size_requests_count")
    assert more("byoc_predict_duration_seconds_sum") > 0
    assert more("byoc_request_body_bytes_count") == 4
    assert more("byoc_request_body_bytes_sum") == 3 * 14 + 6
    assert more("byoc_response_body_bytes_count") == 4
    assert after.value("byoc_workers") == after.value("byoc_workers_ready") == 2
    assert after.value("byoc_worker_restarts_total") == 0
    assert {tuple(labels.values()) for labels in after.labels("byoc_model_load_seconds")} == {
        ("0",),
        ("1",),
    }
    for labels in after.labels("byoc_worker_resident_memory_bytes"):
        assert after.value("byoc_worker_resident_memory_bytes", **labels) > 50e6
    (info,) = after.labels("byoc_build_info")
    assert info["device"] == "cpu"
    assert info["version"]
    assert info["torch"][0].isdigit()


def test_every_metric_has_a_help_text_and_a_unit_in_its_name(shared_server):
    page = scrape(shared_server)
    units = ("_seconds", "_bytes", "_requests", "_info")
    counted = {"byoc_invocations_in_flight", "byoc_workers", "byoc_workers_ready"}

    assert all(page.helps.values())
    for name, kind in page.kinds.items():
        assert name.startswith("byoc_")
        if kind != "counter":
            assert name.endswith(units) or name in counted


def test_openmetrics_is_given_to_who_accepts_it(shared_server):
    answer = shared_server.request("GET", "/metrics", headers={"Accept": OPENMETRICS})

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    page = Page(openmetrics_families(answer.body.decode()))
    assert page.kinds["byoc_requests"] == "counter"
    assert page.value("byoc_workers_ready") == 2


def test_the_page_is_only_read(shared_server):
    answer = shared_server.request("POST", "/metrics", b"")

    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert shared_server.request("HEAD", "/metrics").status == 200


HANDLER = """
    import os, time
    from prometheus_client import Counter, Gauge

    SEEN = Counter("handler_rows", "Rows that the handler has seen.")
    LIVE = Gauge("handler_live", "Processes with the handler.", multiprocess_mode="livesum")
    LIVE.set(1)

    def model_fn(model_dir):
        return None.__class__

    def transform_fn(model, body, content_type, accept):
        SEEN.inc(len(body))
        if body == "hold":
            deadline = time.monotonic() + 60
            while not os.path.exists(os.environ["GATE"]) and time.monotonic() < deadline:
                time.sleep(0.01)
        return str(os.getpid())
"""


def test_a_crash_and_a_handlers_own_metrics_are_seen(model_root, start, front, tmp_path):
    gate = tmp_path / "gate"
    server = start(
        model_root(HANDLER),
        BYOC_FRONT=front,
        SAGEMAKER_MODEL_SERVER_WORKERS="2",
        GATE=str(gate),
    )
    # The porter answers while the workers load.
    server.wait_until(lambda: server.ping() is not None, 60)
    assert scrape(server).value("byoc_workers_ready") == 0
    server.wait_ready()
    victim = int(server.invoke(b"12345", "text/csv").body)
    page = scrape(server)
    assert page.value("handler_rows_total") == 5
    assert page.value("handler_live") == 2

    os.kill(victim, signal.SIGKILL)
    server.wait_until(lambda: scrape(server).value("byoc_worker_restarts_total") == 1, 120)
    server.wait_until(lambda: scrape(server).value("byoc_workers_ready") == 2, 120)
    page = scrape(server)

    # Counts of the dead are kept, its gauge is not.
    assert page.value("handler_rows_total") == 5
    assert page.value("handler_live") == 2
    assert page.value("byoc_requests_total", route="/invocations", status="200") == 1
    _in_flight(server, gate)


def _in_flight(server: Any, gate: Any) -> None:
    import threading

    held = threading.Thread(target=server.invoke, args=(b"hold", "text/csv"))
    held.start()
    try:
        server.wait_until(lambda: scrape(server).value("byoc_invocations_in_flight") == 1)
    finally:
        gate.touch()
        held.join()
    server.wait_until(lambda: scrape(server).value("byoc_invocations_in_flight") == 0)


@pytest.mark.contract(71)
def test_switched_off_the_page_is_not_there(
    model_root: Callable[..., Any], start: Callable[..., Any], torchscript, front
):
    root = model_root(model__pt=torchscript.read_bytes())
    server = start(root, BYOC_METRICS="off", BYOC_FRONT=front).wait_ready()

    answer = server.request("GET", "/metrics")

    assert answer.status == 404
    assert answer.json["error"]["code"] == "not_found"
    assert server.invoke(b"[[1, 2, 3, 4]]").status == 200
