"""A bounded queue in front of one thread that takes whatever has arrived since its last turn.

Knows nothing of HTTP or torch: items go in, ``run`` turns a list of them into a list of
results, ``deliver`` hands them back. No timer: an idle thread starts at once, a busy one finds
its next batch waiting.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class FullError(Exception):
    """No room; the message says what is full."""


class Admission:
    """Counts what is inside, from before a body is read until its answer is made.

    Args:
        max_items: items inside at once.
        max_bytes: bytes inside at once; one item alone may have more.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.items = 0
        self.bytes = 0
        #: Those of the items whose bodies have come and that wait for the model, or run.
        self.working = 0
        #: Requests outside, which a front holds back unread.
        self.held = 0
        self._lock = threading.Lock()

    def enter(self, size_bytes: int, reserved_bytes: int | None = None) -> None:
        """Let an item in.

        Args:
            size_bytes: what it says of its size.
            reserved_bytes: what of that is counted now, the rest as it comes (``grow``); None:
                all. A client that promises much and sends little must not shut out the others.

        Raises:
            FullError: there is no room for it.
        """
        with self._lock:
            if self.items >= self.max_items:
                raise FullError(f"{self.items} requests are waiting or running")
            if self.items and self.bytes + size_bytes > self.max_bytes:
                raise FullError(f"the waiting requests hold {self.bytes} bytes")
            self.items += 1
            self.bytes += size_bytes if reserved_bytes is None else reserved_bytes

    def grow(self, more_bytes: int) -> None:
        """An item inside turned out larger.

        Raises:
            FullError: there is no room for more; the item is still inside.
        """
        with self._lock:
            if self.items > 1 and self.bytes + more_bytes > self.max_bytes:
                raise FullError(f"the waiting requests hold {self.bytes} bytes")
            self.bytes += more_bytes

    def begin(self) -> None:
        """One more item is with the model."""
        with self._lock:
            self.working += 1

    def end(self, items: int) -> None:
        """The model has done with so many items."""
        with self._lock:
            self.working -= items

    def leave(self, size_bytes: int) -> None:
        """An item is done."""
        with self._lock:
            self.items -= 1
            self.bytes -= size_bytes


class Batcher(Generic[T, R]):
    """The queue and its loop; ``serve`` runs in the one thread that may touch the model.

    Args:
        run: a list of items to as many results, in order.
        deliver: called once a batch with (item, result) pairs, in the serving thread.
        rescue: the result for each item when ``run`` itself raised.
        max_batch_items: items handed to ``run`` at once; may be set until ``serve`` is called.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Sequence[R]],
        deliver: Callable[[list[tuple[T, R]]], None],
        rescue: Callable[[T, BaseException], R],
        max_batch_items: int = 1,
    ) -> None:
        self._run = run
        self._deliver = deliver
        self._rescue = rescue
        self.max_batch_items = max_batch_items
        self._waiting: deque[T] = deque()
        self._wake = threading.Semaphore(0)
        self._closed = False
        self._inside = threading.Lock()
        self.batches = 0
        self.items = 0

    def submit(self, item: T) -> None:
        """Queue an item; it is answered through ``deliver``, in whatever way it ends."""
        self._waiting.append(item)
        self._wake.release()

    def close(self) -> None:
        """Let ``serve`` return once everything queued before has been answered."""
        self._closed = True
        self._wake.release()

    def abandon(self) -> list[T]:
        """What is queued, which is no longer the batcher's to answer."""
        waiting: list[T] = []
        while self._waiting:
            waiting.append(self._waiting.popleft())
        return waiting

    def serve(self) -> None:
        """Answer items until closed and empty."""
        while True:
            self._wake.acquire()
            batch = self._take()
            if batch:
                self._answer(batch)
            elif self._closed and not self._waiting:
                return

    def _take(self) -> list[T]:
        """What waits now, up to the batch's limit; the semaphore may stay ahead of the queue."""
        waiting = self._waiting
        batch: list[T] = []
        while waiting and len(batch) < self.max_batch_items:
            batch.append(waiting.popleft())
        return batch

    def _answer(self, batch: list[T]) -> None:
        with self._inside:
            pairs = self._results(batch)
        self._deliver(pairs)

    def try_answer(self, batch: list[T], deliver: Callable[[list[tuple[T, R]]], None]) -> bool:
        """Answer a batch in the calling thread, unless the serving thread is inside ``run``."""
        if not self._inside.acquire(blocking=False):
            return False
        try:
            pairs = self._results(batch)
        finally:
            self._inside.release()
        deliver(pairs)
        return True

    def _results(self, batch: list[T]) -> list[tuple[T, R]]:
        try:
            results: Sequence[R] = self._run(batch)
            pairs = list(zip(batch, results, strict=True))
        except BaseException as error:  # noqa: BLE001 - every item gets an answer, and the thread lives
            pairs = [(item, self._rescue(item, error)) for item in batch]
        self.batches += 1
        self.items += len(batch)
        return pairs


def isolate(call: Callable[[list[T]], Sequence[R]], items: list[T]) -> list[R | Exception]:
    """Call with all items; when that fails, with each half, so that only the guilty fail.

    Args:
        call: a list of items to as many results.
        items: at least one.

    Returns:
        A result or the item's own exception for each item, in order.
    """
    try:
        return list(call(items))
    except Exception as error:  # noqa: BLE001 - it is the item's result
        if len(items) == 1:
            return [error]
    middle = len(items) // 2
    return [*isolate(call, items[:middle]), *isolate(call, items[middle:])]
