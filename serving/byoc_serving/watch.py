"""How long the model of this process has been at the same batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Watch(Generic[T]):
    """Written by whoever runs a batch, read by any thread.

    Args:
        limit_s: a batch that runs longer has hung.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._running: tuple[float, Sequence[T]] | None = None

    def begin(self, batch: Sequence[T]) -> None:
        """A batch starts."""
        self._running = (time.monotonic(), batch)

    def end(self) -> None:
        """Nothing runs."""
        self._running = None

    def hung(self) -> list[T]:
        """The items of the batch of now, when it has been running for too long; else none."""
        running = self._running
        if running is None or time.monotonic() - running[0] <= self.limit_s:
            return []
        return list(running[1])
