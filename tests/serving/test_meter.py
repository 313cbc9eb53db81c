"""Counting in shared memory."""

from __future__ import annotations

import os

import pytest

from byoc_serving import meter
from byoc_serving.meter import Ledger


def test_a_value_on_a_bound_belongs_to_the_bucket_below():
    ledger = Ledger(1)
    for seconds in (0.001, 0.00100001, 5000.0):
        meter.QUEUE_WAIT.observe(ledger.row(0), seconds)

    times = meter.QUEUE_WAIT.read(ledger.total())

    buckets = dict(times.cumulative())
    assert buckets["0.0005"] == 0
    assert buckets["0.001"] == 1
    assert buckets["0.0025"] == 2
    assert buckets["3600.0"] == 2
    assert buckets["+Inf"] == times.count == 3
    assert times.total == pytest.approx(5000.00200001)


def test_rows_of_several_processes_are_added_up():
    ledger = Ledger(1)
    pid = os.fork()
    if pid == 0:
        meter.count_response(ledger.row(0), meter.INVOCATIONS, 200)
        os._exit(0)
    os.waitpid(pid, 0)
    meter.count_response(ledger.row(ledger.porter), meter.INVOCATIONS, 200)
    meter.count_response(ledger.row(ledger.porter), meter.route_of("/ping"), 503)

    assert set(meter.responses(ledger.total())) == {
        ("/invocations", 200, 2.0),
        ("/ping", 503, 1.0),
    }


def test_a_process_that_is_gone_leaves_its_counts_and_no_gauges():
    ledger = Ledger(2)
    ledger.row(1)[meter.IN_FLIGHT] = 7
    meter.BATCH.observe(ledger.row(1), 3)
    ledger.leave(1)

    total = ledger.total()

    assert total[meter.IN_FLIGHT] == 0
    assert meter.BATCH.read(total).count == 1


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/invocations", "/invocations"),
        ("/ping", "/ping"),
        ("/models", "/models"),
        ("/models/a", "/models/{name}"),
        ("/models/a/invoke", "/models/{name}/invoke"),
        ("/invocations/", "other"),
        ("/", "other"),
        ("/modelsx", "other"),
    ],
)
def test_paths_that_anybody_can_invent_make_no_new_routes(path, route):
    assert meter.ROUTES[meter.route_of(path)] == route


def test_a_status_that_is_none_is_counted_as_the_last_one():
    ledger = Ledger(1)
    for status in (0, 99, 600, 1000):
        meter.count_response(ledger.row(0), 0, status)

    assert meter.responses(ledger.total()) == [("/invocations", 599, 4.0)]


def test_quantiles_are_estimated_within_their_bucket():
    ledger = Ledger(1)
    row = ledger.row(0)
    for _ in range(99):
        meter.FORWARD.observe(row, 0.004)
    before = meter.FORWARD.read(ledger.total())
    meter.FORWARD.observe(row, 7.0)
    after = meter.FORWARD.read(ledger.total())

    assert 0.0025 < before.quantile(0.5) <= 0.005
    assert 5.0 < after.quantile(0.999) <= 10.0
    assert 5.0 < after.minus(before).quantile(0.5) <= 10.0
    assert before.minus(before).quantile(0.99) == 0.0
