"""The example on 1, 2 and 4 processes of this machine: the same batches, how much faster."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.serving.goals import Goal
from benchmarks.training import programs

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = (1, 2, 4)


def measure(folder: Path, rounds: int) -> tuple[list[Goal], dict[str, Any]]:
    """In turn; torchrun gives each process one thread."""
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    losses: dict[int, float] = {}
    for number in range(rounds):
        for count in COUNTS:
            launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}")
            done = programs.example(folder, seed=number, fast=False, launcher=launcher)
            seconds[count].append(done.training_seconds)
            losses[count] = done.losses[0]
    medians = {count: statistics.median(values) for count, values in seconds.items()}
    seen = ", ".join(
        f"{count}: {medians[count]:.1f} s ({medians[1] / medians[count]:.2f} x, "
        f"test loss {losses[count]:.4f})"
        for count in COUNTS
    )
    goal = Goal("processes of one thread each, an epoch", seen, "reported", met=True)
    return [goal], {"seconds": seconds, "losses": losses}
