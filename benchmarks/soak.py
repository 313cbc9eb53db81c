"""Hours at a steady share of the maximum: does anything grow, slow down or fail?

``python -m benchmarks.soak --seconds 1800``
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks import subject
from benchmarks.load import Load, find_maximum

if TYPE_CHECKING:
    import argparse

    from benchmarks.serving.processes import Processes

GROWTH_MIB = 20.0
SLOWDOWN = 0.05


async def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the maximum, soak, measure the maximum again."""
    chosen = subject.subject(args)
    running = chosen.start()
    try:
        target = chosen.target(running.port)
        before = await find_maximum(target, args.maximum_seconds)
        stop = asyncio.Event()
        sizes: list[dict[int, float]] = []
        weighing = asyncio.create_task(_weigh(running.processes, args.seconds / 100, sizes, stop))
        load = Load(target, args.connections)
        tally = await load.open_loop(args.share * before, args.seconds)
        stop.set()
        await weighing
        after = await find_maximum(target, args.maximum_seconds)
    finally:
        running.processes.stop()
    tenth = args.seconds / 10
    first, last = tally.between(0, tenth), tally.between(args.seconds - tenth, args.seconds)
    growth = _growth(sizes)
    most = max(growth.values(), default=0.0)
    errors = tally.failed()
    slower = 1 - after / before
    passed = errors == 0 and most <= GROWTH_MIB and slower <= SLOWDOWN
    return {
        "summary": (
            f"{len(tally.due)} requests in {args.seconds:g} s at {args.share * before:.0f}/s "
            f"({args.share:.0%} of {before:.0f}/s): {errors} errors; p50 {first['p50_ms']} -> "
            f"{last['p50_ms']} ms, p99 {first['p99_ms']} -> {last['p99_ms']} ms, goodput "
            f"{first['goodput_per_s']} -> {last['goodput_per_s']}/s (first and last tenth); "
            f"maximum afterwards {after:.0f}/s ({-slower:+.1%}); growth of a process at most "
            f"{most:+.1f} MiB"
        ),
        "passed": passed,
        "maximum_before_per_s": before,
        "maximum_after_per_s": after,
        "first_tenth": first,
        "last_tenth": last,
        "whole": tally.between(0, args.seconds),
        "growth_mib": {str(pid): round(value, 2) for pid, value in growth.items()},
    }


async def _weigh(
    processes: Processes, every_s: float, sizes: list[dict[int, float]], stop: asyncio.Event
) -> None:
    """Resident memory of each process, now and then."""
    while not stop.is_set():
        began = time.monotonic()
        sizes.append(processes.rss_mib())
        await asyncio.sleep(max(0.05, every_s - (time.monotonic() - began)))


def _growth(sizes: list[dict[int, float]]) -> dict[int, float]:
    """MiB from the second tenth (the first is warm-up) to the last, for processes in both."""
    part = max(1, len(sizes) // 10)
    early, late = sizes[part : 2 * part] or sizes[:1], sizes[-part:]

    def middle(samples: list[dict[int, float]], pid: int) -> float:
        return statistics.median(sample[pid] for sample in samples if pid in sample)

    pids = {pid for s in early for pid in s} & {pid for s in late for pid in s}
    return {pid: middle(late, pid) - middle(early, pid) for pid in sorted(pids)}


if __name__ == "__main__":
    arguments = subject.parser(__doc__, 1800.0)
    arguments.add_argument("--share", type=float, default=0.8, help="of the maximum")
    arguments.add_argument("--connections", type=int, default=256, help="at most")
    arguments.add_argument("--maximum-seconds", type=float, default=10.0)
    parsed = arguments.parse_args()
    subject.run(main(parsed), parsed, "soak")
