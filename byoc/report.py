"""What a long action tells while it runs; the command line shows it, a program may ignore it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Transfer(Protocol):
    """Bytes on their way."""

    def update(self, part: str, done: int, total: int) -> None:
        """Say how far a part is, in bytes. Called from any thread."""


class Report(Protocol):
    """Takes what there is to tell."""

    def say(self, line: str) -> None:
        """A line that is true from now on: something began, changed or ended."""

    def log(self, line: str) -> None:
        """A line of the log of a job or an endpoint."""

    def waiting(self, words: str) -> None:
        """What is being waited for; called often, with words that may change."""

    def transfer(self, title: str) -> AbstractContextManager[Transfer]:
        """A transfer, of one or more parts, until the context ends."""


class _Nothing:
    def update(self, part: str, done: int, total: int) -> None:
        pass


class Silent:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Drop it."""

    def log(self, line: str) -> None:
        """Drop it."""

    def waiting(self, words: str) -> None:
        """Drop it."""

    @contextmanager
    def transfer(self, title: str) -> Iterator[Transfer]:  # noqa: ARG002 - as the protocol has it
        """Drop it."""
        yield _Nothing()


SILENT = Silent()
