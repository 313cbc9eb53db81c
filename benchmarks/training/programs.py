"""Training programs as processes of their own, and what they print about themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "mnist" / "train.py"
BASELINE = ROOT / "benchmarks" / "training" / "baseline.py"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        seconds: Of each epoch's training alone, without tests, imports and reading the files.
        accuracies: On the test set, after each epoch.
        losses: Mean loss on the test set, after each epoch.
        whole_seconds: From the start of the process to its end.
    """

    seconds: tuple[float, ...]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    whole_seconds: float

    @property
    def training_seconds(self) -> float:
        """Of all epochs."""
        return sum(self.seconds)


def baseline(folder: Path, *, seed: int, epochs: int = 14, until: float = 1.0) -> Run:
    """The classic recipe, until it has an accuracy or its epochs are over."""
    options = ["--seed", str(seed), "--epochs", str(epochs), "--until", str(until)]
    return run([sys.executable, str(BASELINE), str(folder), *options], {})


def example(folder: Path, *, seed: int, fast: bool, launcher: tuple[str, ...] = ()) -> Run:
    """The example, one epoch of its own recipe or of the fast one."""
    with tempfile.TemporaryDirectory() as output:
        options = ["--seed", str(seed), *(("--fast", "true") if fast else ())]
        return run(
            [sys.executable, *launcher, str(EXAMPLE), *options],
            {
                "SM_CHANNEL_TRAINING": str(folder),
                "SM_MODEL_DIR": f"{output}/model",
                "SM_OUTPUT_DATA_DIR": f"{output}/data",
            },
        )


def run(command: list[str], variables: dict[str, str]) -> Run:
    """Run a program to its end and read its epochs' lines.

    Raises:
        RuntimeError: It failed, or told nothing.
    """
    started = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    whole = time.monotonic() - started
    epochs = [line for line in done.stdout.splitlines() if line.startswith("epoch=")]
    if done.returncode != 0 or not epochs:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return Run(
        tuple(_value(r"(?:train_)?seconds", line) for line in epochs),
        tuple(_value("test_accuracy", line) for line in epochs),
        tuple(_value("test_loss", line) for line in epochs),
        whole,
    )


def _value(name: str, line: str) -> float:
    found = re.search(rf"(?:^|; ){name}=([\d.]+);", line)
    if found is None:
        raise RuntimeError(f"no {name} in {line!r}")
    return float(found[1])
