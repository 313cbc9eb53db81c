"""Who is told of every batch of an engine: in this process, or on behalf of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from byoc_serving.exchange import Invocation


class BatchObserver(Protocol):
    """What an engine tells of its work.

    ``observer.Observer`` counts it, ``multimodel.report.Report`` sends it on. The engine calls
    from the thread that owns the model.
    """

    def loaded(self, seconds: float) -> None:
        """The model has been loaded, in so many seconds."""

    def batch(self, invocations: Sequence[Invocation], began: float, forward_s: float) -> None:
        """A batch has been answered.

        Args:
            invocations: the requests in it.
            began: when the model took them, in seconds of the monotonic clock.
            forward_s: how long it predicted.
        """

    def gpu(self, allocated_bytes: int, reserved_bytes: int) -> None:
        """What torch holds of its GPU; told once a second at most."""
