"""What a server tells of each request: access log, log lines with ids, EMF lines, spans."""

from __future__ import annotations

import json
import logging
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from byoc_serving.access import AccessLog, fields
from byoc_serving.current import working_on
from byoc_serving.exchange import Batch, Exchange, Invocation
from byoc_serving.logs import JsonFormatter, TextFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLER = """
    import logging
    from opentelemetry import trace

    log = logging.getLogger("mine")

    def model_fn(model_dir):
        return lambda x: x

    def input_fn(body, content_type):
        log.info("input %s", body)
        if body == "bad":
            raise ValueError("a bad body")
        return body

    def predict_fn(data, model):
        with trace.get_tracer("mine").start_as_current_span("mine"):
            if data == "broken":
                raise KeyError(data)
            log.info("predict %s", data)
            return data

    def output_fn(prediction, accept):
        log.info("output %s", prediction)
        return prediction
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes spans as an OpenTelemetry collector does (OTLP over HTTP, protobuf)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.server.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing on the tests' own output."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def records(server: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list(server.lines) if line.startswith("{")]


def test_everything_that_is_told_of_a_request(model_root, start, front, collector):
    server = start(
        model_root(HANDLER),
        BYOC_FRONT=front,
        BYOC_LOG_FORMAT="json",
        BYOC_ACCESS_LOG="1",
        BYOC_EMF="1",
        BYOC_EMF_INTERVAL_SECONDS="1",
        BYOC_EMF_NAMESPACE="Test/Digits",
        BYOC_EMF_DIMENSIONS="EndpointName=digits,VariantName=blue",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
        OTEL_BSP_SCHEDULE_DELAY="100",
    ).wait_ready()
    spans_before = len(collector.spans)
    good = server.invoke(
        b"hello",
        "text/csv",
        headers={
            "X-Amzn-SageMaker-Inference-Id": f"mine-{front}",
            "traceparent": f"00-{TRACE}-{PARENT}-01",
        },
    )
    assert good.status == 200
    bad = server.invoke(b"bad", "text/csv")
    assert bad.status == 400
    broken = server.invoke(b"broken", "text/csv")
    assert broken.status == 500
    assert server.request("GET", "/nothing").status == 404
    server.wait_until(lambda: any(told.get("WorkersReady") == 1 for told in records(server)))
    assert server.terminate() == 0

    seen = records(server)
    _access_lines(seen, front, bad, broken)
    _handler_lines(seen, front, broken)
    _emf_lines(seen)
    _spans(collector, spans_before, front)


def _access_lines(seen: list[dict[str, Any]], front: str, bad: Any, broken: Any) -> None:
    # Threads write theirs in any order, each once its answer has left.
    lines = sorted(
        (record for record in seen if "total_ms" in record), key=lambda line: line["status"]
    )
    # Pings are left out: they would be most of the log.
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/invocations", 200),
        ("POST", "/invocations", 400),
        ("GET", "/nothing", 404),
        ("POST", "/invocations", 500),
    ]
    first = lines[0]
    assert first["request_id"] == f"mine-{front}"
    assert (first["received_bytes"], first["sent_bytes"], first["batch"]) == (5, 5, 1)
    assert 0 <= first["predict_ms"] <= first["total_ms"]
    assert 0 <= first["queue_ms"] <= first["total_ms"]
    assert lines[1]["request_id"] == bad.json["error"]["request_id"]
    assert lines[3]["request_id"] == broken.json["error"]["request_id"]
    assert lines[1]["sent_bytes"] == len(bad.body)


def _handler_lines(seen: list[dict[str, Any]], front: str, broken: Any) -> None:
    ids = {record["message"]: record.get("request_id") for record in seen if "message" in record}
    for message in ("input hello", "predict hello", "output hello"):
        assert ids[message] == f"mine-{front}"
    (failure,) = [record for record in seen if "traceback" in record]
    assert failure["request_id"] == broken.json["error"]["request_id"]


def _emf_lines(seen: list[dict[str, Any]]) -> None:
    """Against the rules of the specification's text."""
    lines = [record for record in seen if "_aws" in record]
    assert lines
    for line in lines:
        assert set(line["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
        assert isinstance(line["_aws"]["Timestamp"], int)
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert directive["Namespace"] == "Test/Digits"
        assert directive["Dimensions"] == [["EndpointName", "VariantName"]]
        assert (line["EndpointName"], line["VariantName"]) == ("digits", "blue")
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"}
            assert metric["Unit"] in {"Count", "Milliseconds", "None"}
            value = line[metric["Name"]]
            values = value if isinstance(value, list) else [value]
            assert 1 <= len(values) <= 100
            assert all(math.isfinite(number) for number in values)
        named = {metric["Name"] for metric in directive["Metrics"]}
        assert named | {"_aws", "EndpointName", "VariantName"} == set(line)
    assert sum(line["Invocations"] for line in lines) == 3
    assert sum(line["Invocation4XXErrors"] for line in lines) == 1
    assert sum(line["Invocation5XXErrors"] for line in lines) == 1
    assert sum(len(line.get("RequestLatency", [])) for line in lines) == 3
    assert max(line["WorkersReady"] for line in lines) == 1


def _spans(collector: Collector, before: int, front: str) -> None:
    assert "sagemaker-byoc" in collector.services
    mine = collector.spans[before:]
    by_id = {span.span_id: span for span in mine}
    requests = [span for span in mine if span.name == "POST /invocations"]
    assert len(requests) == 3
    attributes = [
        {item.key: item.value for item in span.attributes}
        for span in sorted(requests, key=lambda span: span.start_time_unix_nano)
    ]
    statuses = [int(found["http.response.status_code"].int_value) for found in attributes]
    assert statuses == [200, 400, 500]
    assert attributes[0]["byoc.request_id"].string_value == f"mine-{front}"
    first = min(requests, key=lambda span: span.start_time_unix_nano)
    assert first.trace_id.hex() == TRACE
    assert first.parent_span_id.hex() == PARENT
    assert [span.status.code for span in requests].count(2) == 1
    children = [span for span in mine if span.parent_span_id == first.span_id]
    # The handler's own span is a child of the request's.
    assert sorted(span.name for span in children) == ["mine", "model", "queue"]
    for span in children:
        assert first.start_time_unix_nano <= span.start_time_unix_nano + 10**6
        assert span.end_time_unix_nano <= by_id[first.span_id].end_time_unix_nano + 10**6


def test_without_the_sdk_one_line_says_so_and_the_server_serves(
    model_root, start, torchscript, tmp_path
):
    # A package of this name without the SDK, before the real one on the path.
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("")
    import os

    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    server = start(
        model_root(model__pt=torchscript.read_bytes()),
        BYOC_OTEL="1",
        BYOC_ACCESS_LOG="all",
        PYTHONPATH=path,
    ).wait_ready()

    assert server.invoke(b"[[1, 2, 3, 4]]").status == 200
    warnings = [line for line in server.lines if "sagemaker-byoc[otel]" in line]
    assert len(warnings) == 1
    server.wait_until(lambda: any(" GET /ping 200 " in line for line in list(server.lines)))


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("n", logging.INFO, "p", 1, message, (), None)
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def test_a_line_of_text_names_the_request_at_work():
    first = Invocation.from_headers([(b"x-amzn-sagemaker-inference-id", b"one")])
    second = Invocation.from_headers([(b"x-amzn-sagemaker-inference-id", b"two")])
    text, as_json = TextFormatter(), JsonFormatter()

    assert "request_id" not in text.format(record("outside"))
    with working_on(first, second):
        assert text.format(record("inside")).endswith("inside request_id=one,two")
        with working_on(second):
            assert json.loads(as_json.format(record("deep")))["request_id"] == "two"
        assert text.format(record("said", request_id="one")).endswith(" request_id=one")
    assert "request_id" not in json.loads(as_json.format(record("outside")))


def test_an_access_line_can_forge_no_other_line(caplog):
    exchange = Exchange("GET", "/a\r\n2026 INFO forged")
    exchange.status = 404
    with caplog.at_level(logging.INFO, "byoc_serving.access"):
        AccessLog(pings=True).write(exchange, 0.001)

    line = TextFormatter().format(caplog.records[0])
    assert "\n" not in line
    assert "\r" not in line
    assert "GET /a 2026 INFO forged 404" in line


def test_an_exchange_that_was_never_batched_has_no_model_times():
    exchange = Exchange("POST", "/invocations")
    exchange.status = 503
    assert "queue_ms" not in fields(exchange, 0.1)

    exchange.invocation = Invocation.from_headers([])
    exchange.invocation.queued_at = 1.0
    exchange.invocation.batch = Batch(1.5, 2.0, 0.25, 7)
    known = fields(exchange, 2.0)
    assert (known["queue_ms"], known["predict_ms"], known["batch"]) == (500.0, 250.0, 7)
