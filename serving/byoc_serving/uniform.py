"""Batches of requests that are alike: joined as arrays, answered out of one array.

The general way (``engine``) takes each request for itself through three functions that may be the
user's, with a context, an input and an output of its own: 15 to 40 microseconds for a request that
needs none of it. Where only our own functions are at work on a CPU, and every request in the batch
is sound, decoded and of one form, that is all the same, and is done once a batch.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from byoc_serving import tensors
from byoc_serving.exchange import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.exchange import Invocation

log = logging.getLogger(__name__)

_JSON = "application/json"
_MAX_STRANGE = 1024


class Uniform:
    """Answers uniform batches of one model.

    Args:
        forward: an input to its output.
        joins: whether inputs of this form may share a pass of so many rows.
        write: one request's response from its output, the general way.
        failed: the response that an exception means, by the stage it came in.
    """

    def __init__(
        self,
        forward: Callable[[Any], Any],
        joins: Callable[[tuple[Any, ...] | None, int], bool],
        write: Callable[[Invocation, Any], Response],
        failed: Callable[[str, Invocation, Exception], Response],
    ) -> None:
        self._forward = forward
        self._joins = joins
        self._write = write
        self._failed = failed
        #: Forms of inputs whose joined outputs cannot be told apart here.
        self._strange: set[tuple[Any, ...] | None] = set()
        #: When the last forward ended, in seconds of the monotonic clock.
        self._ended = 0.0

    def answer(self, invocations: list[Invocation]) -> tuple[list[Response], float] | None:
        """The responses, in order, and how many seconds the forward took.

        None: this batch has to take the general way, and is as it was.
        """
        if not alike(invocations, time.monotonic()):
            return None
        import torch  # noqa: PLC0415 - imported by now

        try:
            tensor = torch.from_numpy(invocations[0].data)
        except TypeError as error:
            log.debug("no tensor: %s", error)
            return None
        began = time.monotonic()
        if len(invocations) == 1:
            responses = self._alone(invocations[0], tensor)
        else:
            joined = self._joined(invocations, tensor)
            if joined is None:
                return None
            responses = joined
        for invocation in invocations:
            invocation.data = None
        return responses, self._ended - began

    def _alone(self, invocation: Invocation, tensor: Any) -> list[Response]:
        """Never twice: the model may have changed its input."""
        try:
            output = self._forward(tensor)
        except Exception as error:  # noqa: BLE001 - any failure is this request's own
            self._ended = time.monotonic()
            return [self._failed("predict", invocation, error)]
        self._ended = time.monotonic()
        return self._responses([invocation], [len(tensor)], output) or [
            self._write(invocation, output)
        ]

    def _joined(self, invocations: list[Invocation], first: Any) -> list[Response] | None:
        import numpy as np  # noqa: PLC0415 - the master imports this module too
        import torch  # noqa: PLC0415 - imported by now

        arrays = [invocation.data for invocation in invocations]
        sizes = [len(array) for array in arrays]
        key = tensors.batch_key(first)
        if key in self._strange or not self._joins(key, sum(sizes)):
            return None
        try:
            output = self._forward(torch.from_numpy(np.concatenate(arrays)))
        except Exception as error:  # noqa: BLE001 - the general way finds out whose it is
            log.debug("a uniform batch failed: %s", error)
            return None
        self._ended = time.monotonic()
        responses = self._responses(invocations, sizes, output)
        if responses is None and len(self._strange) < _MAX_STRANGE:
            self._strange.add(key)
        return responses

    def _responses(
        self, invocations: list[Invocation], sizes: list[int], output: Any
    ) -> list[Response] | None:
        """Out of one tensor with a row for a row; None: it is something else."""
        import torch  # noqa: PLC0415 - imported by now

        from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now
        from byoc_serving.codecs import json_text, plain  # noqa: PLC0415 - as above

        if not isinstance(output, torch.Tensor) or not output.ndim or len(output) != sum(sizes):
            return None
        rows = plain.rows_of(output)
        quick = json_text.sound(rows)
        responses = []
        start = 0
        for invocation, size in zip(invocations, sizes, strict=True):
            part = rows[start : start + size]
            start += size
            kind = invocation.answer_type
            try:
                if quick and kind == _JSON:
                    body = json_text.encode_sound(part)
                else:
                    body = codecs.encode(part, kind)
                responses.append(Response(200, body, kind))
            except Exception as error:  # noqa: BLE001 - any failure is this request's own
                responses.append(self._failed("output", invocation, error))
        return responses


def alike(invocations: list[Invocation], now: float) -> bool:
    """Whether these are decoded arrays of one form, all of them still wanted and unencumbered."""
    first = invocations[0].data
    if first is None or first.ndim < 2:
        return False
    dtype, form = first.dtype, first.shape[1:]
    for invocation in invocations:
        data, future = invocation.data, invocation.future
        if (
            data is None
            or data.dtype != dtype
            or data.shape[1:] != form
            or not invocation.answer_type
            or invocation.session is not None
            or now >= invocation.deadline
            or (future is not None and future.cancelled())
        ):
            return False
    return True
