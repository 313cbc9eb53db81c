"""Ten thousand clients that mean no good, and a few that do: who is served, at what cost?

``python -m benchmarks.crowded --connections 10000``

The server is asked by ordinary clients at a share of its maximum while a crowd (``crowd``) keeps
its connections open, trickles heads and bodies, half-closes and never reads. No ordinary request
may fail, no worker may be lost, and memory may grow by so much a connection and no more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import subject
from benchmarks.load import Load, find_maximum
from benchmarks.serving import model

if TYPE_CHECKING:
    import argparse

#: What a connection may cost the server, in KiB.
KIB_A_CONNECTION = 64.0
PING_P99_MS = 50.0
PINGS_PER_S = 20
#: New connections of the crowd, a second.
ARRIVALS_PER_S = 1000


async def main(args: argparse.Namespace) -> dict[str, Any]:
    """Ordinary clients alone, then in the crowd, then alone again."""
    chosen = subject.subject(args)
    running = chosen.start()
    try:
        target = chosen.target(running.port)
        maximum = await find_maximum(target, args.maximum_seconds)
        before = running.processes.rss_mib()
        crowd = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.crowd"),
            *map(str, (running.port, args.connections, ARRIVALS_PER_S)),
            cwd=model.ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert crowd.stdout is not None
        await asyncio.wait_for(crowd.stdout.readline(), 120)
        pinger = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.pinger"),
            *(str(running.port), str(args.seconds), str(PINGS_PER_S), "0"),
            cwd=model.ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        tally = await Load(target, 32).open_loop(args.share * maximum, args.seconds)
        pings = json.loads((await pinger.communicate())[0])
        during = running.processes.rss_mib()
        became = json.loads((await crowd.communicate(b"\n"))[0])
        afterwards = await find_maximum(target, args.maximum_seconds)
    finally:
        running.processes.stop()
    lost = sorted(set(before) - set(during))
    grown = sum(during.values()) - sum(before.values())
    cost = 1024 * grown / args.connections
    figures = tally.between(0, args.seconds)
    passed = not lost and not tally.failed() and not pings["bad"] and cost <= KIB_A_CONNECTION
    return {
        "summary": (
            f"a crowd of {args.connections} connections ({sum(became['cut_off'].values())} cut "
            f"off, {became['there']} there at the end) for {args.seconds:g} s; {len(tally.due)} "
            f"ordinary requests at {args.share * maximum:.0f}/s: {tally.failed()} failed, p50 "
            f"{figures['p50_ms']} ms, p99 {figures['p99_ms']} ms; /ping p99 {pings['p99_ms']} ms "
            f"({pings['bad']} bad); {len(lost)} processes lost; memory {grown:+.0f} MiB "
            f"({cost:.1f} KiB a connection); maximum {maximum:.0f}/s before, {afterwards:.0f}/s "
            "afterwards"
        ),
        "passed": passed and pings["p99_ms"] <= PING_P99_MS,
        "crowd": became,
        "ordinary": figures,
        "ping": pings,
        "rss_before_mib": before,
        "rss_during_mib": during,
        "maximum_before_per_s": maximum,
        "maximum_after_per_s": afterwards,
    }


if __name__ == "__main__":
    arguments = subject.parser(__doc__, 60.0)
    arguments.add_argument("--connections", type=int, default=10_000)
    arguments.add_argument("--share", type=float, default=0.3, help="of the maximum")
    arguments.add_argument("--maximum-seconds", type=float, default=5.0)
    parsed = arguments.parse_args()
    subject.run(main(parsed), parsed, "crowded")
