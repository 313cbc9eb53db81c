"""``make bench-serving``: this project's server and its peers, one model, one machine, one table.

Rounds alternate: every server once, then every server again, so that a slow minute of the machine
does not hit one of them alone. wrk shares the cores with the server, so the figures compare
servers with each other; they are no server's limit on a machine of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.serving import bounds, catalog, goals, machine, model, table
from benchmarks.serving.environments import UnavailableError, binaries
from benchmarks.serving.processes import end_on_sigterm
from benchmarks.serving.results import Bounds, Row
from benchmarks.serving.trial import Plan, TrialError, measure


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--peers", help=f"names, separated by commas; of {', '.join(sorted(catalog.PEERS))}"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load (default 8)")
    parser.add_argument("--rounds", type=int, default=2, help="of all servers (default 2)")
    parser.add_argument("--quick", action="store_true", help="one round of 2 s, JSON and c32 only")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=model.ROOT / "build" / "bench")
    parser.add_argument("--output", type=Path, help="JSON file (default: in the cache folder)")
    parser.add_argument("--start-seconds", type=float, default=180.0, help="for a first answer")
    parser.add_argument("--no-bounds", action="store_true", help="leave out the engine alone")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds = 2.0, 1
    if unknown := set(names(args)) - set(catalog.PEERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if shutil.which("wrk") is None:
        parser.error("wrk is not on PATH; install it: apt-get install wrk")
    return args


def names(args: argparse.Namespace) -> list[str]:
    """The rows asked for, in order."""
    return args.peers.split(",") if args.peers else list(catalog.DEFAULT)


def say(text: str) -> None:
    """Progress goes to standard error; the table alone to standard output."""
    print(text, file=sys.stderr, flush=True)


def prepare(rows: list[Row], cache: Path) -> dict[str, Path]:
    """The environments of all servers, before anything is timed."""
    places: dict[str, Path] = {}
    for row in rows:
        peer = row.peer
        if peer.setting and not bounds.known(peer.setting):
            row.failure = f"this version of serve does not know {peer.setting}"
            continue
        try:
            places[peer.name] = binaries(peer, cache)
        except UnavailableError as error:
            row.failure = str(error)
            say(f"{peer.name}: {error}")
    return places


def run(rows: list[Row], plan: Plan, rounds: int, sample: model.Sample) -> None:
    """All rounds of all servers."""
    places = prepare(rows, plan.cache)
    for number in range(1, rounds + 1):
        for row in rows:
            if row.failure:
                continue
            began = time.monotonic()
            try:
                figures = measure(row.peer, places[row.peer.name], sample, plan)
            except (TrialError, RuntimeError) as error:
                row.failure = f"round {number}: {error}"
                say(f"round {number}: {row.peer.name}: {error}")
                continue
            row.rounds.append(figures)
            loads = ", ".join(f"{k} {v['rate']:,.0f}/s" for k, v in figures.loads.items())
            took = time.monotonic() - began
            times = f"start {figures.start_s:.1f} s, {took:.0f} s in all"
            say(f"round {number}: {row.peer.name}: {loads} ({times})")


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    end_on_sigterm()
    cache = args.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    about = machine.describe()
    about["run"] = (
        f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {args.rounds} alternating rounds of "
        f"{args.seconds:g} s a load; best rate, median in brackets; wrk has 1 thread, same cores"
    )
    about["body"] = "one MNIST image [1,1,28,28] float32: JSON 16 KB, npy 3 KB; CNN 32-64-128"
    kinds, connections = (("json",), (32,)) if args.quick else (catalog.KINDS, (32, 1))
    plan = Plan(cache, args.seconds, args.workers, connections, kinds, args.start_seconds)
    sample = model.prepare(cache / "model")
    rows = [Row(catalog.PEERS[name]) for name in names(args)]
    run(rows, plan, args.rounds, sample)
    limits = None
    if not args.no_bounds:
        engine = {kind: bounds.engine_rate(sample, kind, plan) for kind in kinds}
        limits = Bounds(engine, bounds.import_torch_s(1 if args.quick else 3))
    print(table.render(rows, limits, about))
    verdicts = goals.judge(rows, limits)
    print("\nGoals, default settings:\n")
    for verdict in verdicts:
        print(f"- {verdict}")
    output = args.output or cache / "serving.json"
    content = {
        "about": about,
        "rows": [row.as_json() for row in rows],
        "bounds": vars(limits) if limits else None,
        "goals": [vars(verdict) for verdict in verdicts],
    }
    output.write_text(json.dumps(content, indent=1) + "\n")
    say(f"written to {output}")
    if not any(row.rounds for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
