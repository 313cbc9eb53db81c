"""Measure training: ``make bench-training DATA=FOLDER``, parts of it with ``ONLY=entry,ranks``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.serving import machine
from benchmarks.training import entry, pipeline, ranks, recipes, whole_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.serving.goals import Goal

    Part = Callable[[], tuple[list[Goal], dict[str, Any]]]


def main() -> int:
    """Run the parts, print each figure beside its goal; 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="make bench-training")
    parser.add_argument("--data", type=Path, required=True, help="folder of the MNIST files")
    parser.add_argument("--only", default="", help="parts, with commas between them")
    parser.add_argument("--seeds", type=int, default=20, help="runs of --fast")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("build/bench/training.json"))
    args = parser.parse_args()
    folder = args.data.resolve()
    parts: dict[str, Part] = {
        "entry": lambda: entry.measure(os.environ.get("BYOC_ORACLE_PYTHON"), 10 * args.rounds),
        "pipeline": lambda: pipeline.measure(folder),
        "ranks": lambda: ranks.measure(folder, args.rounds),
        "recipes": lambda: recipes.measure(folder, args.seeds, args.rounds),
        "job": lambda: whole_job.measure(folder, args.rounds),
    }
    chosen = args.only.split(",") if args.only else list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    results: dict[str, Any] = {"machine": machine.describe()}
    print("; ".join(f"{name}: {text}" for name, text in results["machine"].items()), flush=True)
    met = True
    for name in chosen:
        goals, results[name] = parts[name]()
        for goal in goals:
            print(goal, flush=True)
            met &= goal.met
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=1))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
