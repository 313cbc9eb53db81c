"""What a runner is, and how the output of what it runs is followed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from byoc.local.layout import TrainingLayout

#: Seconds between SIGTERM and SIGKILL: contract sections 1.2 (training) and 7.1 (hosting).
TRAINING_STOP_SECONDS = 120
SERVING_STOP_SECONDS = 30
#: Of this process's variables none that would lead a program elsewhere than it is told.
_NOT_INHERITED = ("AWS_", "BYOC_", "SAGEMAKER_", "SM_", "TRAINING_JOB_")


class Running(Protocol):
    """A started ``train`` or ``serve``."""

    #: Where its HTTP port answers, for ``serve``.
    address: tuple[str, int]

    def poll(self) -> int | None:
        """The exit code, or ``None`` while it runs."""

    def wait(self) -> int:
        """Wait for the end; the exit code. All output has been handed over then."""

    def stop(self, seconds: float) -> int:
        """SIGTERM, after ``seconds`` SIGKILL; the exit code."""


class Runner(Protocol):
    """Starts the two programs."""

    #: One phrase for the job's log.
    description: str
    #: Whether the programs run in this environment and see this machine's files.
    uses_this_environment: bool

    def train(
        self, layout: TrainingLayout, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Running:
        """Start a training job on an already created layout."""

    def serve(
        self, model: Path, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Running:
        """Start a server over an unpacked model archive."""


def inherited() -> dict[str, str]:
    """Variables of this process that a program that stands for a container may have."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}


def lines_of(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Whole lines out of chunks of any length."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def follow(lines: Iterable[bytes], on_line: Callable[[str], None]) -> threading.Thread:
    """Hand every line to ``on_line`` from a thread of its own."""

    def read() -> None:
        for line in lines:
            on_line(line.decode("utf-8", "replace").rstrip("\r\n"))

    thread = threading.Thread(target=read, name="follow-log", daemon=True)
    thread.start()
    return thread
