"""Goals are judged from the figures alone."""

from __future__ import annotations

from benchmarks.serving import catalog, goals, table
from benchmarks.serving.results import Bounds, Row
from benchmarks.serving.trial import Figures


def row(name: str, rate: float, p99_ms: float = 10.0, others: float = 0.0) -> Row:
    load = {
        "rate": rate,
        "p50_ms": 0.5,
        "p99_ms": p99_ms,
        "errors": 0,
        "server_cores": 1.5,
        "least_busy_core": 0.9,
        "other_cores": others,
    }
    figures = Figures(start_s=2.0, loads={"json-32": load, "json-1": load}, pss_mib=500.0)
    return Row(catalog.PEERS[name], [figures])


ROWS = [row("byoc", 3000), row("torchserve", 1000), row("granian+frozen", 2600)]


def test_a_goal_is_met_or_missed_by_its_ratio() -> None:
    judged = {goal.name: goal for goal in goals.judge(ROWS, Bounds({"json": 4000}, 1.0))}
    assert judged["json c32 against the best that batches"].met
    assert not judged["json c32 against the best bare front, given the frozen model"].met
    assert not judged["start beyond a bare import of torch"].met
    assert judged["PSS after load"].met
    assert judged["json c1 p50"].met


def test_a_slow_tail_misses_its_goal() -> None:
    judged = {goal.name: goal for goal in goals.judge([row("byoc", 3000, 21.0)], None)}
    assert not judged["json c32 p99"].met


def test_the_table_marks_who_is_faster_and_names_who_is_missing() -> None:
    absent = Row(catalog.PEERS["ray"], failure="does not install: no such wheel")
    text = table.render([*ROWS, row("robyn+frozen", 3300), absent], None, {"machine": "test"})
    faster = next(line for line in text.splitlines() if line.startswith("| robyn+frozen"))
    slower = next(line for line in text.splitlines() if line.startswith("| torchserve"))
    assert "1.10 ▲" in faster
    assert "▲" not in slower
    assert "Not measured: ray: does not install: no such wheel" in text


def test_the_best_and_the_median_round_are_kept_apart() -> None:
    both = row("byoc", 3000)
    both.rounds += row("byoc", 2000).rounds
    assert both.rate("json-32") == 3000
    assert both.median("json-32") == 2500


def test_a_machine_that_was_busy_otherwise_is_named_in_the_table() -> None:
    quiet = table.render([row("byoc", 3000)], None, {})
    busy = table.render([row("byoc", 300, others=1.4)], None, {})
    assert "Not a quiet machine" not in quiet
    assert "other programs used 1.40 cores" in busy
