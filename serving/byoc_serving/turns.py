"""Short batches run on the event loop itself, without the hand-over to the model thread.

Only for requests that our own functions answer alone, and only where batches of this shape have
been measured to be shorter than ``TURN_S``: whatever has arrived while the loop was busy becomes
the next batch, and a ping waits for one turn at most. Everything else, and everything while the
model thread is at work, goes to that thread.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.exchange import Invocation

#: What one turn may take on the loop.
TURN_S = 0.004
#: Measured batches of a shape before it may run on the loop.
TRUSTED = 3
_MAX_SHAPES = 256
_UNKNOWN = float("inf")
#: Weight of the newest measurement.
_WEIGHT = 0.2


class Costs:
    """Seconds a batch takes, by the form of its inputs and the size of the batch, as measured."""

    def __init__(self) -> None:
        #: For each form: measurements by the size's power of two, each (count, seconds a row).
        self._costs: dict[Any, dict[int, tuple[int, float]]] = {}
        self._shares: dict[Any, float] = {}

    def observe(self, data: Any, rows: int, seconds: float) -> None:
        """A batch of ``rows`` rows of this form took so long."""
        shape = (data.dtype, data.shape[1:])
        sizes = self._costs.get(shape)
        if sizes is None:
            if len(self._costs) >= _MAX_SHAPES:
                return
            sizes = self._costs[shape] = {}
        size = rows.bit_length()
        count, cost = sizes.get(size, (0, 0.0))
        new = seconds / rows
        sizes[size] = (count + 1, new if not count else cost + _WEIGHT * (new - cost))
        # A larger batch costs less a row. The least is right even when another size was last
        # measured in a bad moment: the next batches are as large as it allows, and measured.
        trusted = [cost for count, cost in sizes.values() if count >= TRUSTED]
        if trusted:
            self._shares[shape] = min(trusted) / TURN_S

    def share(self, data: Any) -> float:
        """The share of a turn that this input takes; infinite while it is not known."""
        return len(data) * self._shares.get((data.dtype, data.shape[1:]), _UNKNOWN)


class Turns:
    """The queue of the loop's own turns.

    Args:
        answer: answers a batch here and now, unless the model thread is at work (False);
            then ``resume`` must be called when it has done.
        call_soon: the loop's; all calls come on the loop.
    """

    def __init__(
        self,
        answer: Callable[[list[Invocation]], bool],
        call_soon: Callable[[Callable[[], None]], Any],
    ) -> None:
        self._answer = answer
        self._call_soon = call_soon
        self._waiting: deque[tuple[Invocation, float]] = deque()
        self._scheduled = False

    def submit(self, invocation: Invocation, share: float) -> None:
        """Queue a request that takes this share of a turn."""
        self._waiting.append((invocation, share))
        self._schedule()

    def resume(self) -> None:
        """The model thread has finished a batch: what waited may run."""
        if self._waiting:
            self._schedule()

    def abandon(self) -> list[Invocation]:
        """What is queued, which is no longer to be answered here."""
        waiting = [invocation for invocation, _ in self._waiting]
        self._waiting.clear()
        return waiting

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        batch: list[tuple[Invocation, float]] = []
        total = 0.0
        while self._waiting and (not batch or total + self._waiting[0][1] <= 1):
            batch.append(self._waiting.popleft())
            total += batch[-1][1]
        if not batch:
            return
        if not self._answer([invocation for invocation, _ in batch]):
            self._waiting.extendleft(reversed(batch))
        elif self._waiting:
            # Between two turns the loop answers pings and reads what has come.
            self._schedule()
