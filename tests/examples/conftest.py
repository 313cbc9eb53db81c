"""A channel of real digits, and the example's training script as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits as a channel folder."""
    from examples.demo import channel

    folder, _ = channel.prepare("digits", tmp_path_factory.mktemp("data"))
    return folder


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A channel of 320 and 100 digits, for what does not depend on their number."""
    from examples.demo import channel
    from examples.mnist import dataset

    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 320), ("t10k", 100)):
        images, labels = dataset.load(digits, split)
        channel.write(folder / f"{split}-images-idx3-ubyte.gz", images[:count])
        channel.write(folder / f"{split}-labels-idx1-ubyte.gz", labels[:count])
    return folder


@dataclass(frozen=True)
class Job:
    """The folders of one training run."""

    root: Path
    channel: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SM_CHANNEL_TRAINING": str(self.channel),
            "SM_MODEL_DIR": str(self.model),
            "SM_OUTPUT_DATA_DIR": str(self.root / "output"),
            "SM_CHECKPOINT_DIR": str(self.checkpoints),
            "PYTHONUNBUFFERED": "1",
        }

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, str(EXAMPLE / "train.py"), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def job(tmp_path: Path, few_digits: Path) -> Job:
    return Job(tmp_path, few_digits)


@pytest.fixture
def job_on(tmp_path: Path) -> Callable[[Path], Job]:
    """A job on another channel folder."""
    return lambda channel: Job(tmp_path, channel)
