"""How long the example's step waits for its data, and how fast batches are made.

``python -m benchmarks.training.pipeline FOLDER``
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.serving.goals import Goal
from benchmarks.training.programs import EXAMPLE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING = 0.02


def measure(folder: Path) -> tuple[list[Goal], dict[str, Any]]:
    """One epoch of each recipe, timed in a process of its own."""
    goals: list[Goal] = []
    figures: dict[str, Any] = {}
    for fast in (False, True):
        command = [sys.executable, "-m", "benchmarks.training.pipeline", str(folder), str(fast)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        figure = json.loads(done.stdout.splitlines()[-1])
        figures["fast" if fast else "example"] = figure
        share = figure["waited_s"] / figure["epoch_s"]
        goals.append(
            Goal(
                f"data path, {'--fast' if fast else 'the example'}",
                f"{share:.2%} of {figure['epoch_s']:.1f} s waited for batches; batches alone "
                f"{figure['images_per_s']:,.0f} images/s",
                f"below {WAITING:.0%}",
                share < WAITING,
            )
        )
    return goals, figures


def _time(folder: Path, *, fast: bool) -> dict[str, float]:
    sys.path[:0] = [str(EXAMPLE.parent), str(ROOT / "training")]
    import train  # type: ignore[import-not-found] # noqa: PLC0415 - the example's

    sys.argv = ["train.py", "--training", str(folder), "--fast", str(fast)]

    class Timed(train.Trainer):  # type: ignore[misc] # untyped from here
        """Adds up how long each batch took to come."""

        waited = 0.0

        def batches(self, order: Any) -> Iterator[Any]:
            source = super().batches(order)
            while True:
                started = time.perf_counter()
                batch = next(source, None)
                self.waited += time.perf_counter() - started
                if batch is None:
                    return
                yield batch

    trainer = Timed(train.arguments())
    started = time.perf_counter()
    trainer.train_epoch()
    epoch = time.perf_counter() - started
    order = trainer.order()
    waited, trainer.step = trainer.waited, 0
    started = time.perf_counter()
    count = sum(len(labels) for _, labels in trainer.batches(order))
    alone = time.perf_counter() - started
    return {"epoch_s": epoch, "waited_s": waited, "images_per_s": count / alone}


if __name__ == "__main__":
    print(json.dumps(_time(Path(sys.argv[1]), fast=sys.argv[2] == "True")))
