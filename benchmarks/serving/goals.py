"""What the project asks of its server, against what was measured in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.serving.catalog import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.serving.results import Bounds, Row

TIMES_THE_BEST_BATCHING = 3.0
TIMES_THE_BEST_BARE_FRONT = 1.2
P99_MS = 20.0
ALONE_P50_MS = 0.9
OF_ENGINE_AND_HTTP = 0.9
START_OVER_IMPORT_S = 0.5
TIMES_THE_LEANEST = 1.1


@dataclass(frozen=True)
class Goal:
    """One goal: what was measured, what it is held against."""

    name: str
    seen: str
    wanted: str
    met: bool

    def __str__(self) -> str:
        return (
            f"{'met   ' if self.met else 'MISSED'}  {self.name}: {self.seen} (goal: {self.wanted})"
        )


def judge(rows: Sequence[Row], bounds: Bounds | None) -> list[Goal]:
    """Every goal whose figures are there, for the server's default settings."""
    ours = next((row for row in rows if row.peer.name == "byoc" and row.rounds), None)
    if ours is None:
        return []
    peers = [row for row in rows if row.rounds and not row.peer.ours and not row.peer.calibration]
    http = next((row for row in rows if row.peer.calibration and row.rounds), None)
    goals: list[Goal] = []
    for kind in KINDS:
        goals += _throughput(kind, ours, peers)
        goals += _latency(kind, ours)
        goals += _overhead(kind, ours, http, bounds)
    goals += _start(ours, bounds)
    goals += _memory(ours, peers)
    return goals


def _best(
    rows: Sequence[Row], load: str, chosen: Callable[[Row], bool]
) -> tuple[float, str] | None:
    return max(
        ((rate, row.peer.name) for row in rows if chosen(row) and (rate := row.rate(load))),
        default=None,
    )


def _throughput(kind: str, ours: Row, peers: Sequence[Row]) -> Iterator[Goal]:
    load = f"{kind}-32"
    own = ours.rate(load)
    for title, wanted, best in (
        (
            "the best that batches",
            TIMES_THE_BEST_BATCHING,
            _best(peers, load, lambda row: row.peer.batches and "+" not in row.peer.name),
        ),
        (
            "the best that batches, given the frozen model",
            TIMES_THE_BEST_BATCHING,
            _best(peers, load, lambda row: row.peer.batches and "+" in row.peer.name),
        ),
        (
            "the best bare front, given the frozen model",
            TIMES_THE_BEST_BARE_FRONT,
            _best(peers, load, lambda row: not row.peer.batches),
        ),
    ):
        if own and best:
            times = own / best[0]
            seen = f"{times:.2f} x {best[1]}"
            yield Goal(f"{kind} c32 against {title}", seen, f"≥ {wanted} x", times >= wanted)


def _latency(kind: str, ours: Row) -> Iterator[Goal]:
    best = ours.best(f"{kind}-32")
    if best:
        p99 = best["p99_ms"]
        yield Goal(f"{kind} c32 p99", f"{p99:.1f} ms", f"≤ {P99_MS:g} ms", p99 <= P99_MS)
    p50 = ours.least(f"{kind}-1", "p50_ms")
    if p50 is not None:
        wanted = f"≤ {ALONE_P50_MS} ms"
        yield Goal(f"{kind} c1 p50", f"{p50:.2f} ms", wanted, p50 <= ALONE_P50_MS)


def _overhead(kind: str, ours: Row, http: Row | None, bounds: Bounds | None) -> Iterator[Goal]:
    """Costs add up: seconds a request in the engine plus seconds a request in HTTP."""
    own, front = ours.rate(f"{kind}-32"), http.rate(f"{kind}-32") if http else None
    if not (own and front and bounds and bounds.engine.get(kind)):
        return
    possible = 1 / (1 / bounds.engine[kind] + 1 / front)
    part = own / possible
    wanted = f"≥ {OF_ENGINE_AND_HTTP:.0%}"
    seen = f"{part:.0%} of {possible:,.0f}/s"
    yield Goal(f"{kind} c32 of engine and HTTP alone", seen, wanted, part >= OF_ENGINE_AND_HTTP)


def _start(ours: Row, bounds: Bounds | None) -> Iterator[Goal]:
    if bounds and ours.start_s is not None:
        over = ours.start_s - bounds.import_torch_s
        met = over <= START_OVER_IMPORT_S
        seen = f"{over:+.2f} s"
        yield Goal("start beyond a bare import of torch", seen, f"≤ {START_OVER_IMPORT_S} s", met)


def _memory(ours: Row, peers: Sequence[Row]) -> Iterator[Goal]:
    leanest = min(((row.pss_mib or 0.0, row.peer.name) for row in peers), default=None)
    if leanest and ours.pss_mib:
        times = ours.pss_mib / leanest[0]
        seen = f"{times:.2f} x {leanest[1]}"
        yield Goal("PSS after load", seen, f"≤ {TIMES_THE_LEANEST} x", times <= TIMES_THE_LEANEST)
