"""A response that is still being made: one producer, one consumer, a bounded buffer between.

The producer is whatever runs the handler: a thread of this process (``streams``), or a relay
whose other end is another process. The consumer is the front that holds the client's connection.
Neither knows the other. Every method may be called from any thread.

A producer calls, in this order:

- ``open(head)`` once, before the first chunk; or ``answer(head)`` instead of everything else when
  the response turned out to be a complete one, such as an error before the first chunk;
- ``write(chunk)``, which waits while the buffer is full, or, where waiting is not possible,
  ``feed(chunk)``, which never waits, with ``full`` and ``on_drain`` to pause the source;
- ``end()``, or ``fail()`` for a response that breaks off.

A consumer registers ``listen`` or calls ``wait``, then looks at ``head`` and ``whole``, and calls
``take`` until ``ended``; ``broken`` says how it ended. ``cancel`` tells the producer that nobody
reads any more: ``write`` raises, and ``on_cancel`` lets a source that waits be stopped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

H = TypeVar("H")

#: Bytes that wait for a slow client before the producer waits too.
BUFFER_BYTES = 256 * 1024
#: Chunks that may wait, however small they are.
BUFFER_CHUNKS = 256
#: After the deadline a producer has this long to end a stream in its own words.
OVERTIME_S = 2.0


class StreamCancelledError(Exception):
    """Nobody reads the stream any more; the producer should stop."""


class Stream(Generic[H]):
    """A response on its way, chunk by chunk.

    Args:
        timeout_s: the consumer gives up this long after the stream was made; None: never.
    """

    def __init__(self, timeout_s: float | None = None) -> None:
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._changed = threading.Condition()
        self._head: H | None = None
        self._whole = False
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._done = False
        self._failed = False
        self._cancelled = False
        self._listener: Callable[[], None] | None = None
        self._on_cancel: list[Callable[[], None]] = []
        self._on_drain: list[Callable[[], None]] = []
        self._on_done: list[Callable[[], None]] = []

    # The producer's side.

    def open(self, head: H) -> None:
        """What comes before the chunks: status, type and headers."""
        with self._changed:
            self._head = head
        self._tell()

    def answer(self, head: H) -> None:
        """A complete response in place of a stream; nothing follows."""
        with self._changed:
            self._head = head
            self._whole = True
        self.end()

    def write(self, chunk: bytes) -> None:
        """Hand over a chunk; wait while the consumer is behind.

        Raises:
            StreamCancelledError: nobody reads, or not before the time is over.
        """
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._cancelled or not self._full(), self.left_s()
            )
        if not ready:
            self.cancel()
        self.feed(chunk)

    def feed(self, chunk: bytes) -> None:
        """Hand over a chunk, whatever waits already.

        Raises:
            StreamCancelledError: nobody reads.
        """
        with self._changed:
            if self._cancelled:
                raise StreamCancelledError
            self._chunks.append(chunk)
            self._held_bytes += len(chunk)
        self._tell()

    @property
    def full(self) -> bool:
        """Whether ``write`` would wait."""
        with self._changed:
            return self._full() and not self._cancelled

    def _full(self) -> bool:
        return self._held_bytes >= BUFFER_BYTES or len(self._chunks) >= BUFFER_CHUNKS

    def end(self) -> None:
        """Nothing follows; the response is complete."""
        with self._changed:
            if self._done:
                return
            self._done = True
            callbacks, self._on_done = self._on_done, []
        self._tell()
        for callback in callbacks:
            callback()

    def fail(self) -> None:
        """Nothing follows, and the client must be able to tell that something is missing."""
        with self._changed:
            self._failed = self._failed or not self._done
        self.end()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have a function called when nobody reads any more; at once when that is so already."""
        with self._changed:
            if not self._cancelled:
                self._on_cancel.append(callback)
                return
        callback()

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Have a function called whenever the consumer has taken chunks."""
        with self._changed:
            self._on_drain.append(callback)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Have a function called when the producer has ended; at once when it has already."""
        with self._changed:
            if not self._done:
                self._on_done.append(callback)
                return
        callback()

    # The consumer's side.

    def listen(self, callback: Callable[[], None]) -> None:
        """Have a function called, in any thread, whenever there is something new; and once now."""
        with self._changed:
            self._listener = callback
        callback()

    def wait(self, timeout_s: float) -> bool:
        """Wait for something new: a head, a chunk or the end. False when there was nothing."""
        with self._changed:
            return self._changed.wait_for(self._readable, timeout_s)

    def _readable(self) -> bool:
        return bool(self._chunks) or self._done

    @property
    def head(self) -> H | None:
        """What ``open`` or ``answer`` was given; None until then."""
        return self._head

    @property
    def whole(self) -> bool:
        """Whether the head is the complete response."""
        return self._whole

    def take(self) -> list[bytes]:
        """The chunks that wait; makes room for more."""
        with self._changed:
            chunks = list(self._chunks)
            self._chunks.clear()
            self._held_bytes = 0
            self._changed.notify_all()
            callbacks = list(self._on_drain) if chunks else []
        for callback in callbacks:
            callback()
        return chunks

    @property
    def ended(self) -> bool:
        """Whether every chunk has been taken and none will come."""
        with self._changed:
            return self._done and not self._chunks

    @property
    def broken(self) -> bool:
        """Whether the end is not the response's own."""
        return self._failed

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    @property
    def late(self) -> bool:
        """Whether the stream has lasted as long as it may; its producer should end it."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def left_s(self) -> float | None:
        """Seconds until a consumer gives up on a producer that does not end a late stream."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline + OVERTIME_S - time.monotonic())

    def cancel(self) -> None:
        """Nobody reads any more; what waits is dropped. After the end it changes nothing."""
        with self._changed:
            if self._cancelled:
                return
            self._cancelled = True
            self._chunks.clear()
            self._held_bytes = 0
            self._changed.notify_all()
            callbacks, self._on_cancel = self._on_cancel, []
            callbacks += self._on_drain
        for callback in callbacks:
            callback()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listener = self._listener
        if listener is not None:
            listener()
