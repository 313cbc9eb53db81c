"""The server under test of the load, overload and restart programs: ours, or any of the peers."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Target, allow_many_connections, render
from benchmarks.serving import catalog, model
from benchmarks.serving.environments import binaries
from benchmarks.serving.processes import end_on_sigterm
from benchmarks.serving.trial import Plan, Running

if TYPE_CHECKING:
    from collections.abc import Coroutine


@dataclass(frozen=True)
class Subject:
    """What is started, and what it is asked."""

    peer: catalog.Peer
    bin: Path
    sample: model.Sample
    plan: Plan
    kind: str
    #: Images in one request.
    images: int = 1

    def start(self, port: int | None = None) -> Running:
        """A fresh server that has answered once, on a given port or a free one."""
        running = Running(self.peer, self.bin, self.sample, self.plan, port)
        try:
            running.wait_first_answer(self.plan.start_s)
        except BaseException:
            running.processes.stop()
            raise
        return running

    def target(self, port: int) -> Target:
        """Requests to a port, with their check."""
        requests = [
            render(self.peer.route, *self.sample.body(self.peer, self.kind, number, self.images))
            for number in range(model.IMAGES)
        ]
        return Target(port, requests, self._right)

    def _right(self, number: int, body: bytes) -> bool:
        return self.sample.right(self.peer, body, number, self.images)


def parser(about: str | None, seconds: float, images: int = 1) -> argparse.ArgumentParser:
    """The arguments that all of these programs have."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--server", default="byoc", help="a row of benchmarks.serving")
    made.add_argument("--kind", default="npy", choices=catalog.KINDS)
    made.add_argument("--images", type=int, default=images, help="in one request")
    made.add_argument("--seconds", type=float, default=seconds)
    made.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    made.add_argument("--cache", type=Path, default=model.ROOT / "build" / "bench")
    made.add_argument("--output", type=Path, help="JSON file (default: in the cache folder)")
    return made


def subject(args: argparse.Namespace) -> Subject:
    """The server that the arguments name."""
    allow_many_connections()
    cache = args.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    peer = catalog.PEERS[args.server]
    plan = Plan(cache, args.seconds, args.workers)
    sample = model.prepare(cache / "model")
    return Subject(peer, binaries(peer, cache), sample, plan, args.kind, args.images)


def run(main: Coroutine[Any, Any, dict[str, Any]], args: argparse.Namespace, name: str) -> None:
    """Run a program, write its figures, print its summary line; exit 1 when a goal is missed."""
    end_on_sigterm()
    try:
        import uvloop  # noqa: PLC0415 - quicker where it is there
    except ImportError:
        report = asyncio.run(main)
    else:
        report = uvloop.run(main)
    output = args.output or args.cache.resolve() / f"{name}.json"
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{name}: {report['summary']}")
    if not report["passed"]:
        sys.exit(1)
