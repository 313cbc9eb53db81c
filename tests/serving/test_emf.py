"""CloudWatch's embedded metrics out of the ledger."""

from __future__ import annotations

import io
import json

import pytest

from byoc_serving import meter
from byoc_serving.emf import Emitter, spread
from byoc_serving.meter import Ledger
from byoc_serving.table import Table


def emitter(ledger: Ledger, stream: io.StringIO, interval_s: float = 60.0) -> Emitter:
    return Emitter(ledger, Table(1), "N", {"D": "v"}, interval_s, stream)


def test_each_line_tells_of_its_interval_alone():
    ledger, stream = Ledger(1), io.StringIO()
    telling = emitter(ledger, stream)
    row = ledger.row(0)
    for seconds in (0.002, 0.004):
        meter.count_response(row, meter.INVOCATIONS, 200)
        meter.DURATION[meter.INVOCATIONS].observe(row, seconds)
    telling.flush()
    meter.count_response(row, meter.INVOCATIONS, 503)
    meter.count_response(row, meter.route_of("/ping"), 503)
    telling.flush()
    telling.flush()

    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())

    assert (first["Invocations"], first["Invocation5XXErrors"]) == (2, 0)
    assert len(first["RequestLatency"]) == 2
    assert (second["Invocations"], second["Invocation5XXErrors"]) == (1, 1)
    assert third["Invocations"] == 0
    # No value is no metric: an empty array would be none of the format's.
    assert "RequestLatency" not in third
    names = [metric["Name"] for metric in third["_aws"]["CloudWatchMetrics"][0]["Metrics"]]
    assert "RequestLatency" not in names


def test_a_line_is_written_once_an_interval():
    ledger, stream = Ledger(1), io.StringIO()
    telling = emitter(ledger, stream, 3600.0)
    for _ in range(5):
        telling.tick()
    assert stream.getvalue() == ""
    telling._next = 0.0
    for _ in range(5):
        telling.tick()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_closed_stream_does_not_end_the_server():
    stream = io.StringIO()
    telling = emitter(Ledger(1), stream)
    stream.close()

    telling.flush()


def test_a_hundred_values_keep_the_percentiles():
    ledger = Ledger(1)
    row = ledger.row(0)
    for _ in range(9800):
        meter.FORWARD.observe(row, 0.004)
    for _ in range(200):
        meter.FORWARD.observe(row, 7.0)

    values = spread(meter.FORWARD.read(ledger.total()))

    assert len(values) == 100
    assert values == sorted(values)
    assert sum(value > 5 for value in values) == 2
    assert values[50] == pytest.approx(0.00375, rel=0.4)
