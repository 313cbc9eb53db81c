"""Once, twice, three times the maximum: what is still answered, and does ``/ping`` stay quick?

``python -m benchmarks.overload``

The server has one half of the cores to itself and the clients the other half, as they would be on
other machines: a client that asks three times as much as can be answered would otherwise take the
cores that it wants the answers from.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import subject
from benchmarks.load import Load, find_maximum
from benchmarks.serving import model

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

GOODPUT = 0.9
PING_P99_MS = 50.0
PINGS_PER_S = 20
#: Requests due in the first seconds fill the queue; they are load, not measurement.
FILL_S = 2.0
#: Keeps the core that its argument names busy, behind everything else.
_BUSY = """
import os, sys
os.sched_setaffinity(0, [int(sys.argv[1])])
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


@contextlib.contextmanager
def busy(cores: list[int]) -> Iterator[None]:
    """Keep cores busy with what gives way to everything else."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY, str(core)]) for core in cores]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the maximum, then each multiple of it."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    # Inherited by what is started.
    os.sched_setaffinity(0, cores[:half])
    args.workers = half
    chosen = subject.subject(args)
    running = chosen.start()
    os.sched_setaffinity(0, cores[half:] or cores)
    steps: list[dict[str, Any]] = []
    neighbours = contextlib.ExitStack()
    try:
        neighbours.enter_context(busy(cores[half:]))
        target = chosen.target(running.port)
        maximum = await find_maximum(target, args.maximum_seconds)
        window = min(FILL_S, args.seconds / 2), args.seconds
        for times in args.times:
            pinger = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.pinger"),
                *(str(running.port), str(args.seconds), str(PINGS_PER_S), str(window[0])),
                cwd=model.ROOT,
                stdout=asyncio.subprocess.PIPE,
            )
            load = Load(target, args.connections)
            tally = await load.open_loop(times * maximum, args.seconds)
            output, _ = await pinger.communicate()
            steps.append(
                {
                    "times": times,
                    **tally.between(*window),
                    # Of requests that were due then, many are answered when the load is over.
                    "goodput_per_s": round(tally.goodput(*window), 1),
                    "ping": json.loads(output),
                    "lost": tally.failed(503),
                }
            )
    finally:
        neighbours.close()
        running.processes.stop()
    passed = all(
        step["lost"] == 0
        and (step["times"] > 2 or step["ping"]["p99_ms"] <= PING_P99_MS)
        and (step["times"] < 3 or step["goodput_per_s"] >= GOODPUT * maximum)
        for step in steps
    )
    return {
        "summary": f"maximum {maximum:.0f}/s; " + "; ".join(_line(step, maximum) for step in steps),
        "passed": passed,
        "maximum_per_s": maximum,
        "steps": steps,
    }


def _line(step: dict[str, Any], maximum: float) -> str:
    return (
        f"{step['times']:g}x ({step['asked_per_s']:.0f}/s due): goodput "
        f"{step['goodput_per_s']:.0f}/s ({step['goodput_per_s'] / maximum:.0%}), p99 "
        f"{step['p99_ms']:.0f} ms, 503s {step['outcomes'].get('503', 0)}, lost {step['lost']}, "
        f"/ping p99 {step['ping']['p99_ms']} ms, with the first {FILL_S:g} s at most "
        f"{step['ping']['max_ms']} ms ({step['ping']['bad']} bad)"
    )


if __name__ == "__main__":
    arguments = subject.parser(__doc__, 15.0, images=8)
    arguments.add_argument("--times", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    arguments.add_argument("--connections", type=int, default=8192, help="at most")
    arguments.add_argument("--maximum-seconds", type=float, default=10.0)
    parsed = arguments.parse_args()
    subject.run(main(parsed), parsed, "overload")
