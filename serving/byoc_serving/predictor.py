"""Forward passes for several requests at once, only where that gives the same answers.

Requests whose inputs agree in all but dimension 0 are joined. Whether a model treats dimension 0
as a batch is not taken on trust: the first joined passes for each input form are compared with
passes one by one, and a form whose answers differ (a recurrent model fed one sequence a request,
a model that samples) is served one by one from then on.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from byoc_serving import tensors
from byoc_serving.batcher import isolate
from byoc_serving.torch_errors import is_out_of_memory
from byoc_serving.transfers import DEPTH, UnfetchableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.transfers import Flight, Transfers

log = logging.getLogger(__name__)

#: Joined passes that are compared for each input form.
CHECKS = 2
#: After a batch was too large for the memory, batches stay smaller for so long.
SMALLER_S = 60.0


class Predictor:
    """Runs ``forward`` on the inputs of a batch.

    Args:
        forward: one input to one output, in the model thread.
        max_rows: rows in one pass; 1 turns joining off.
        transfers: overlaps the passes of a GPU; None: each is waited for.
        coarse: joined and single answers may differ as TF32 does, not only as float32.
    """

    def __init__(
        self,
        forward: Callable[[Any], Any],
        max_rows: int,
        transfers: Transfers | None = None,
        *,
        coarse: bool = False,
    ) -> None:
        self._transfers = transfers
        self._coarse = coarse
        self._forward = forward
        self._max_rows = max_rows
        self._checks_left: dict[tuple[Any, ...], int] = {}
        self._fitting_rows = max_rows
        self._smaller_until = 0.0

    @property
    def rows_limit(self) -> int:
        """Rows in one pass now: fewer for a while after the memory was too small for more."""
        if self._fitting_rows < self._max_rows and time.monotonic() > self._smaller_until:
            self._fitting_rows = self._max_rows
        return self._fitting_rows

    def joins(self, key: tuple[Any, ...] | None, rows: int) -> bool:
        """Whether inputs of this form have been found to share a pass, and so many rows fit."""
        return key is not None and self._checks_left.get(key) == 0 and rows <= self.rows_limit

    def predict(self, inputs: list[Any]) -> list[Any]:
        """An output or an exception for each input, in order."""
        results: list[Any] = [None] * len(inputs)
        flying: deque[tuple[list[int], list[Any], Flight | None]] = deque()
        for positions in self._groups(inputs):
            group = [inputs[position] for position in positions]
            flight = self._launched(group)
            flying.append((positions, group, flight))
            # One computes while the next one is copied; without a flight nothing is under way.
            while flying and (flight is None or len(flying) >= DEPTH):
                self._land(results, *flying.popleft())
        while flying:
            self._land(results, *flying.popleft())
        return results

    def _launched(self, group: list[Any]) -> Flight | None:
        """A pass under way, None where the group is to be answered synchronously."""
        if self._transfers is None:
            return None
        key = tensors.batch_key(group[0])
        if key is None or not group[0].is_cpu:
            return None
        if len(group) > 1 and self._checks_left.get(key) != 0:
            return None
        try:
            return self._transfers.launch(group, self._forward)
        except UnfetchableError as error:
            log.warning("copies from the GPU are synchronous: %s", error)
            self._transfers = None
        except Exception as error:  # noqa: BLE001 - the synchronous pass tells whose it is
            log.debug("a launch failed: %s", error)
        return None

    def _land(
        self, results: list[Any], positions: list[int], group: list[Any], flight: Flight | None
    ) -> None:
        """Put a group's outputs where they belong."""
        outputs: list[Any] | None = None
        if flight is not None:
            try:
                output = flight.result()
                sizes = [int(data.shape[0]) for data in group]
                outputs = [output] if len(group) == 1 else tensors.split(output, sizes)
            except Exception as error:  # noqa: BLE001 - the synchronous pass tells whose it is
                log.debug("a pass failed: %s", error)
        if outputs is None:
            outputs = self._group(group) if len(group) > 1 else isolate(self._singly, group)
        for position, output in zip(positions, outputs, strict=True):
            results[position] = output

    def _groups(self, inputs: list[Any]) -> list[list[int]]:
        """Positions that go into one pass each."""
        if len(inputs) == 1 or self._max_rows == 1:
            return [[position] for position in range(len(inputs))]
        limit = self.rows_limit
        groups: list[list[int]] = []
        open_groups: dict[tuple[Any, ...], tuple[list[int], int]] = {}
        for position, data in enumerate(inputs):
            key = tensors.batch_key(data)
            if key is None or self._checks_left.get(key) == -1:
                groups.append([position])
                continue
            rows = int(data.shape[0])
            group, held = open_groups.get(key, ([], 0))
            if not group or held + rows > limit:
                group, held = [], 0
                groups.append(group)
            group.append(position)
            open_groups[key] = (group, held + rows)
        return groups

    def _singly(self, inputs: list[Any]) -> list[Any]:
        return [self._forward(data) for data in inputs]

    def _joined(self, inputs: list[Any]) -> list[Any]:
        if len(inputs) == 1:
            return self._singly(inputs)
        sizes = [int(data.shape[0]) for data in inputs]
        try:
            output = self._forward(tensors.join(inputs))
        except Exception as error:
            if is_out_of_memory(error):
                self._shrink(sum(sizes), error)
            raise
        return tensors.split(output, sizes)

    def _shrink(self, rows: int, error: Exception) -> None:
        """Remember that so many rows do not fit; the caller tries each half."""
        self._fitting_rows = max(1, min(self._fitting_rows, rows // 2))
        self._smaller_until = time.monotonic() + SMALLER_S
        log.warning(
            "out of memory with %d rows in one pass; at most %d for the next %d s: %s",
            rows,
            self._fitting_rows,
            SMALLER_S,
            str(error).split("\n", 1)[0],
        )
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _group(self, inputs: list[Any]) -> list[Any]:
        key = tensors.batch_key(inputs[0])
        assert key is not None  # noqa: S101 - only joinable inputs are grouped
        left = self._checks_left.get(key, CHECKS)
        if left == 0:
            return isolate(self._joined, inputs)
        alone = [isolate(self._singly, [data])[0] for data in inputs]
        good = [i for i, output in enumerate(alone) if not isinstance(output, Exception)]
        if len(good) < 2:
            return alone
        try:
            together = self._joined([inputs[i] for i in good])
            same = all(
                tensors.close(alone[i], t, coarse=self._coarse)
                for i, t in zip(good, together, strict=True)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, joining does not work here
            if is_out_of_memory(error):
                # Says nothing of the model; the next pass will be smaller.
                return alone
            log.debug("joined forward failed: %s", error)
            same = False
        if not same:
            log.warning(
                "batching is off for inputs of shape [N, %s]: joined requests get other answers "
                "than single ones",
                ", ".join(map(str, key[0])),
            )
        if len(self._checks_left) < 1024:
            self._checks_left[key] = left - 1 if same else -1
        return alone
