"""What one model has done, counted in the front: for its lines of ``/metrics`` and the server's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import CLIENT_LEFT
from byoc_serving.multimodel.report import GPU, batch_of

if TYPE_CHECKING:
    from byoc_serving.exchange import Invocation
    from byoc_serving.observer import Observer

OK, CLIENT_ERROR, SERVER_ERROR, REFUSED, ABANDONED = (
    *("ok", "client_error", "server_error"),
    *("refused", "abandoned"),
)
OUTCOMES = (OK, CLIENT_ERROR, SERVER_ERROR, REFUSED, ABANDONED)


class Tally:
    """Counts of one model since it was loaded; they end with it.

    Attributes:
        outcomes: requests by how they ended; refused are those that the model had no room for.
        predict_s: seconds in its predict_fn or transform_fn.
        restarts: processes of the model that ended on their own.
        gpu: bytes that its tensors, and torch's allocator, hold of a GPU.

    Args:
        observer: counts for the whole server; None: nobody does.
    """

    def __init__(self, observer: Observer | None) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.predict_s = 0.0
        self.restarts = 0
        self.gpu = (0, 0)
        self._observer = observer
        self._began = 0.0
        # Requests are refused in any thread of the WSGI front.
        self._lock = threading.Lock()

    def answered(self, status: int) -> None:
        """A request has been answered, in whatever way."""
        if status == CLIENT_LEFT:
            outcome = ABANDONED
        elif status < 400:
            outcome = OK
        else:
            outcome = CLIENT_ERROR if status < 500 else SERVER_ERROR
        self.outcomes[outcome] += 1

    def refused(self) -> None:
        """There was no room for a request; safe in any thread."""
        with self._lock:
            self.outcomes[REFUSED] += 1

    def reported(self, invocation: Invocation, meta: dict[str, Any]) -> None:
        """What the model's process has said of a request's batch."""
        self.gpu = meta.get(GPU, self.gpu)
        batch = batch_of(meta)
        if batch is None:
            return
        first = batch.began != self._began
        if first:
            self._began = batch.began
            self.predict_s += batch.forward_s
        if self._observer is not None:
            self._observer.reported(invocation, batch, first=first)

    def restarted(self) -> None:
        """The model's process ended on its own."""
        self.restarts += 1
        if self._observer is not None:
            self._observer.restarted()
