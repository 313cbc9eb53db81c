"""A training job as the platform sees it: container start to ``model.tar.gz``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving.goals import Goal
from byoc.local.layout import TrainingLayout
from byoc.local.runners.docker import DockerRunner
from byoc.packaging import pack

GOAL_S = 40.0


def measure(folder: Path, times: int) -> tuple[list[Goal], dict[str, Any]]:
    """One MNIST epoch in the training image, with each recipe."""
    runner = DockerRunner("sagemaker-byoc-training", "sagemaker-byoc-inference")
    goals: list[Goal] = []
    figures: dict[str, Any] = {}
    for name, hyperparameters in (("the example", {"epochs": "1"}), ("--fast", {"fast": "true"})):
        seconds = [_once(runner, folder, hyperparameters) for _ in range(times)]
        figures[name] = seconds
        shown = ", ".join(f"{one:.1f}" for one in seconds)
        goals.append(
            Goal(
                f"whole job, {name}",
                f"{shown} s from the container's start to model.tar.gz",
                f"{GOAL_S:g} s",
                max(seconds) <= GOAL_S,
            )
        )
    return goals, figures


def _once(runner: DockerRunner, folder: Path, hyperparameters: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        layout = TrainingLayout(root / "ml", hyperparameters, {"training": folder})
        layout.create()
        lines: list[str] = []
        started = time.monotonic()
        job = runner.train(layout, {"TRAINING_JOB_NAME": "mnist"}, lines.append)
        code = job.wait()
        if code != 0:
            raise RuntimeError(f"exit code {code}: {lines[-10:]}")
        pack(layout.model, root / "model.tar.gz")
        return time.monotonic() - started
