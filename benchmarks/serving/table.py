"""The rows as a Markdown table, and what our own server loses."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.serving.results import Bounds, Row

#: The system's own share; beyond it the figures are disturbed.
QUIET_CORES = 0.15
_HEAD = (
    "server",
    "JSON c32 req/s (median)",
    "x byoc",
    "p50 / p99 ms",
    "npy c32 req/s (median)",
    "x byoc",
    "p50 / p99 ms",
    "c1 p50 ms JSON / npy",
    "start s",
    "PSS MiB",
    "cores",
    "errors",
)

_LEGEND = (
    "c32, c1: 32 connections, 1 connection, each with one request at a time (a closed loop: "
    "latency leaves out the wait before sending). Bold: this project; ▲: a peer that is faster "
    "than byoc; italics: a bound without a model. +frozen: a peer given the faster of "
    "torch's frozen channels-last and its optimize_for_inference, timed at the batch it makes. "
    "x byoc compares best rates. Errors: statuses of 400 and more and broken connections under "
    "load; answers are compared with the model's own before and after it, not during it. Start: "
    "to the first right answer, the best round."
)


def render(rows: Sequence[Row], bounds: Bounds | None, about: Mapping[str, str]) -> str:
    """The whole report."""
    ours = next((row for row in rows if row.peer.name == "byoc" and row.rounds), None)
    measured = [row for row in rows if row.rounds]
    measured.sort(key=lambda row: -(row.rate("json-32") or 0.0))
    lines = [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", _row(_HEAD), _row(["---", *["---:"] * (len(_HEAD) - 1)])]
    lines += [_row(_cells(row, ours)) for row in measured]
    lines += ["", *_disturbed(measured)]
    if bounds:
        rates = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in bounds.engine.items())
        lines += [
            f"Engine alone, no HTTP, without wrk beside it: {rates} answers/s.",
            f'`python -c "import torch"`: {bounds.import_torch_s:.2f} s.',
        ]
    lines += [f"Not measured: {row.peer.name}: {row.failure}" for row in rows if row.failure]
    lines += ["", _LEGEND, "", "How each is set up:", ""]
    lines += [f"- {row.peer.name}: {_setup(row)}" for row in measured]
    return "\n".join(lines)


def _setup(row: Row) -> str:
    """How a server is configured, and which versions were installed."""
    versions = f" [{', '.join(row.peer.requirements)}]" if row.peer.requirements else ""
    joins = "" if row.peer.calibration or row.peer.batches else "; no batching"
    return f"{row.peer.about}{joins}{versions}"


def _disturbed(rows: Sequence[Row]) -> list[str]:
    """A warning when other programs took part of the machine."""
    others = [
        load.get("other_cores", 0.0)
        for row in rows
        for figures in row.rounds
        for load in figures.loads.values()
    ]
    if not others or statistics.median(others) < QUIET_CORES:
        return []
    used = f"other programs used {statistics.median(others):.2f} cores (median of all loads)"
    return [f"**Not a quiet machine: {used}. These figures say nothing; repeat the run.**", ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row, ours: Row | None) -> list[str]:
    cells = [f"**{row.peer.name}**" if row.peer.ours else row.peer.name]
    if row.peer.calibration:
        cells[0] = f"*{row.peer.name}*"
    for load in ("json-32", "npy-32"):
        best = row.best(load)
        own = ours.rate(load) if ours else None
        if best is None:
            cells += ["—", "", ""]
            continue
        ratio = best["rate"] / own if own else None
        wins = ratio is not None and ratio > 1 and not row.peer.ours and not row.peer.calibration
        cells += [
            f"{best['rate']:,.0f} ({row.median(load):,.0f})",
            "" if ratio is None else f"{ratio:.2f}{' ▲' if wins else ''}",
            f"{best['p50_ms']:.1f} / {best['p99_ms']:.1f}",
        ]
    single = [row.least(load, "p50_ms") for load in ("json-1", "npy-1")]
    cells.append(" / ".join("—" if value is None else f"{value:.2f}" for value in single))
    cells.append(f"{row.start_s:.2f}")
    cells.append(f"{row.pss_mib:,.0f}")
    best = row.best("json-32")
    cells.append(f"{best['server_cores']:.2f}" if best else "")
    cells.append(str(row.errors))
    return cells
