"""What a model's process tells of its batches; it goes to the front with the answers themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byoc_serving.exchange import Invocation

#: Members of an answer's meta data: [began, ended, forward_s, requests] and [allocated, reserved].
BATCH, GPU = "batch", "gpu"


class Report:
    """A ``BatchObserver`` that counts nothing: the front does, which alone has a row to write to.

    A batch goes with each of its answers, which belong together by when it began, and needs no
    message of its own.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._gpu: tuple[int, int] | None = None

    def loaded(self, seconds: float) -> None:
        """Nothing: the front has measured it, with the start of the process."""

    def batch(self, invocations: Sequence[Invocation], began: float, forward_s: float) -> None:
        """Keep the batch for the answers that follow."""
        _ = invocations
        self._batch = Batch(began, time.monotonic(), forward_s, len(invocations))

    def gpu(self, allocated_bytes: int, reserved_bytes: int) -> None:
        """Keep the memory for the next answer."""
        self._gpu = (allocated_bytes, reserved_bytes)

    def meta(self) -> dict[str, Any]:
        """For an answer's meta data."""
        told: dict[str, Any] = {}
        if self._batch is not None:
            batch = self._batch
            told[BATCH] = [batch.began, batch.ended, batch.forward_s, batch.requests]
        if self._gpu is not None:
            told[GPU], self._gpu = self._gpu, None
        return told

    def sent(self) -> None:
        """All answers of the batch are on their way."""
        self._batch = None


def batch_of(meta: dict[str, Any]) -> Batch | None:
    """The batch that an answer tells of."""
    return Batch(*meta[BATCH]) if BATCH in meta else None
