"""CUDA graphs of a model, one a batch bucket: a pass is one launch instead of hundreds.

A graph repeats the same kernels on the same memory, so a batch is padded with zeros to the next
power of two and copied into the graph's own input. A graph is made in the thread that owns the
model when a bucket is seen for the ``WARM``-th time, and answers only after it has given the
answers of the model as loaded, with and without padding. Whatever cannot be captured (a copy to
the host, a branch on data) is answered without a graph.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from byoc_serving.deviation import deviation

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Passes of a bucket before it is captured: rare batch sizes are not worth a graph's memory.
WARM = 3
#: Graphs of one model, over all shapes and buckets.
MAX_GRAPHS = 32
#: Pairs of shape and bucket that are counted.
_MAX_SEEN = 1024


class Capturing(Protocol):
    """Makes graphs: CUDA's, or a stand-in's."""

    def capture(self, forward: Callable[[Any], Any], data: Any) -> Callable[[], Any]:
        """Record ``forward(data)``; the result repeats it into the same output tensors."""


class CudaCapture:
    """Captures on one device; all graphs of a model share one memory pool."""

    def __init__(self) -> None:
        self._pool: Any = None

    def capture(self, forward: Callable[[Any], Any], data: Any) -> Callable[[], Any]:
        """Record ``forward(data)`` on a side stream, after passes that settle the kernels."""
        import torch  # noqa: PLC0415 - imported by now

        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        stream: Any = torch.cuda.Stream
        side = stream(data.device)
        side.wait_stream(torch.cuda.current_stream(data.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                forward(data)
        torch.cuda.current_stream(data.device).wait_stream(side)
        torch.cuda.synchronize(data.device)
        graph = torch.cuda.CUDAGraph()
        # Other threads (streams of a handler) may allocate meanwhile: their calls are no error.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
        ):
            output = forward(data)

        def replay() -> Any:
            graph.replay()
            return output

        return replay


class _Graph:
    """One bucket's input and what repeats the pass over it."""

    def __init__(self, capturing: Capturing, forward: Callable[[Any], Any], data: Any) -> None:
        self._input = data
        self._replay = capturing.capture(forward, data)

    def __call__(self, data: Any) -> Any:
        rows = len(data)
        self._input[:rows].copy_(data)
        if rows < len(self._input):
            # Zeros, not the rows of the request before.
            self._input[rows:].zero_()
        return rows_of(self._replay(), rows, len(self._input))


class Graphs:
    """Stands in front of a form of a model on a GPU; called in the thread that owns the model.

    Args:
        forward: the form.
        reference: the model as loaded.
        tolerance: largest difference to it, as a share of the largest value of its answer.
        max_rows: rows of the largest bucket.
        capturing: makes the graphs.
    """

    def __init__(
        self,
        forward: Callable[[Any], Any],
        reference: Callable[[Any], Any],
        tolerance: float,
        max_rows: int,
        capturing: Capturing,
    ) -> None:
        self._forward = forward
        self._reference = reference
        self._tolerance = tolerance
        self._max_rows = max_rows
        self._capturing = capturing
        self._seen: dict[tuple[Any, ...], int] = {}
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._off = False

    @property
    def count(self) -> int:
        """Graphs that answer."""
        return len(self._graphs)

    def __call__(self, data: Any) -> Any:
        """The form's answer for ``[N, ...]``, in memory that the next call leaves alone."""
        rows = len(data)
        if not rows or rows > self._max_rows:
            return self._forward(data)
        rung = bucket(rows, self._max_rows)
        key = (rung, data.dtype, *data.shape[1:])
        graph = self._graphs.get(key)
        if graph is not None:
            return graph(data)
        if not self._off and self._due(key):
            self._make(key, rung, data)
        return self._forward(data)

    def _due(self, key: tuple[Any, ...]) -> bool:
        """Whether a bucket has now been seen often enough; each is tried once."""
        if key not in self._seen and len(self._seen) >= _MAX_SEEN:
            return False
        self._seen[key] = self._seen.get(key, 0) + 1
        return self._seen[key] == WARM and len(self._graphs) < MAX_GRAPHS

    def _make(self, key: tuple[Any, ...], rung: int, data: Any) -> None:
        try:
            static = data.new_zeros((rung, *data.shape[1:]))
            static[: len(data)].copy_(data)
            graph = _Graph(self._capturing, self._forward, static)
            worst = max(
                deviation(self._reference(part), graph(part))
                for part in (data, data[:-1], data)
                if len(part)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, this model has no graphs
            self._refuse(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            return
        if worst > self._tolerance:
            self._refuse(
                f"answers differ by {worst:.1e} of the largest value, the tolerance is "
                f"{self._tolerance:.0e}"
            )
            return
        self._graphs[key] = graph

    def _refuse(self, why: str) -> None:
        """No graph from now on; those that answer already were verified and stay."""
        self._off = True
        log.warning("the model is asked without CUDA graphs: %s", why)


def bucket(rows: int, max_rows: int) -> int:
    """The next power of two, at most ``max_rows``."""
    return min(1 << (rows - 1).bit_length(), max_rows)


def rows_of(output: Any, rows: int, bucket_rows: int) -> Any:
    """The first rows of a padded pass, in memory of their own.

    Raises:
        ValueError: the output is no tensor, tuple, list or dict of tensors with a row for each
            of the input's.
    """
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(output, torch.Tensor):
        if output.ndim < 1 or len(output) != bucket_rows:
            raise ValueError(f"the output's shape is {tuple(output.shape)} for {bucket_rows} rows")
        return output[:rows].clone()
    if isinstance(output, dict):
        return {name: rows_of(value, rows, bucket_rows) for name, value in output.items()}
    if type(output) in (tuple, list):
        return type(output)(rows_of(value, rows, bucket_rows) for value in output)
    raise ValueError(f"the output is {type(output).__name__}, which has no rows")
