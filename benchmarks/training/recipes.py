"""The example's two recipes against the classic one: one epoch, and the time to 99 %."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.serving.goals import Goal
from benchmarks.training import programs

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.training.programs import Run

FASTER_EPOCH, FASTER_TO_99 = 5.0, 10.0
ONE_EPOCH, TARGET = 0.985, 0.99
EXAMPLES_A_ROUND = 3


def measure(folder: Path, seeds: int, rounds: int) -> tuple[list[Goal], dict[str, Any]]:
    """Alternate: some of the fast runs, the example, the classic recipe to 99 %."""
    classic: list[Run] = []
    example: list[Run] = []
    fast: list[Run] = []
    for number in range(rounds):
        share = range(number * seeds // rounds, (number + 1) * seeds // rounds)
        fast += [programs.example(folder, seed=seed, fast=True) for seed in share]
        share = range(number * EXAMPLES_A_ROUND, (number + 1) * EXAMPLES_A_ROUND)
        example += [programs.example(folder, seed=seed, fast=False) for seed in share]
        classic.append(programs.baseline(folder, seed=number, until=TARGET))
    return _judge(classic, example, fast), {
        "classic": [vars(one) for one in classic],
        "example": [vars(one) for one in example],
        "fast": [vars(one) for one in fast],
    }


def _judge(classic: list[Run], example: list[Run], fast: list[Run]) -> list[Goal]:
    epoch = statistics.median(seconds for one in classic for seconds in one.seconds)
    ours = statistics.median(one.training_seconds for one in example)
    accuracies = [one.accuracies[0] for one in example]
    reached = all(one.accuracies[-1] >= TARGET for one in classic)
    # A recipe that never got there has been watched for this long at least.
    to_99 = statistics.mean(one.training_seconds for one in classic)
    whole_to_99 = statistics.mean(one.whole_seconds for one in classic)
    fast_seconds = statistics.mean(one.training_seconds for one in fast)
    fast_whole = statistics.mean(one.whole_seconds for one in fast)
    fast_accuracy = statistics.mean(one.accuracies[-1] for one in fast)
    lowest = min(one.accuracies[-1] for one in fast)
    epochs = ", ".join(str(len(one.seconds)) for one in classic)
    return [
        Goal(
            "one epoch of the example",
            f"{ours:.1f} s beside {epoch:.1f} s: {epoch / ours:.1f} x; accuracy "
            f"{min(accuracies):.2%} to {max(accuracies):.2%} (mean loss "
            f"{statistics.mean(one.losses[0] for one in example):.4f}), the classic "
            + ", ".join(f"{one.accuracies[0]:.2%}" for one in classic),
            f"{FASTER_EPOCH:g} x, {ONE_EPOCH:.1%}",
            epoch / ours >= FASTER_EPOCH and min(accuracies) >= ONE_EPOCH,
        ),
        Goal(
            f"--fast, {len(fast)} seeds",
            f"accuracy {fast_accuracy:.3%} on average, {lowest:.2%} at least, after "
            f"{fast_seconds:.2f} s of training, {fast_whole:.1f} s with the process; the classic "
            f"{'reaches' if reached else 'does not reach'} {TARGET:.1%} after {to_99:.1f} s "
            f"({epochs} epochs), {whole_to_99:.1f} s with the process: "
            f"{to_99 / fast_seconds:.1f} x, {whole_to_99 / fast_whole:.1f} x",
            f"{TARGET:.1%} on average, {FASTER_TO_99:g} x",
            fast_accuracy >= TARGET and to_99 / fast_seconds >= FASTER_TO_99,
        ),
    ]
