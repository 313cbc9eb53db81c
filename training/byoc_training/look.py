"""Looking at file systems that may never answer.

A call on a mount whose server is gone blocks for ever, and no time-out can be given to it. So it
is made in a thread of its own, which is left behind where it does not come back: a daemon, which
keeps no process from ending.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Look(Generic[T]):
    """A question that has been asked already.

    Args:
        ask: Answers it; raises nothing but OSError, which counts as no answer.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._answers: list[T] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answers.append(self._ask())
        except OSError:
            return

    def answer(self, until: float) -> T | None:
        """The answer, or None where there is none.

        Args:
            until: When to give up, in seconds of `time.monotonic`.
        """
        self._thread.join(max(0.0, until - time.monotonic()))
        return self._answers[0] if self._answers else None

    @property
    def pending(self) -> bool:
        """Whether it is still being looked at."""
        return self._thread.is_alive()
