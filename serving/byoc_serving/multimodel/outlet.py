"""A stream on its way out of a model's process, in whichever thread makes it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from byoc_serving.multimodel.wire import Kind, head

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.exchange import Response
    from byoc_serving.streaming import Stream


def answer_meta(response: Response, told: dict[str, Any] | None = None) -> bytes:
    """What a response is beside its body, and what its process tells of itself with it."""
    import orjson  # noqa: PLC0415 - with torch, in the zygote

    return orjson.dumps(
        {
            "status": response.status,
            "type": response.content_type,
            "headers": response.headers,
            **(told or {}),
        }
    )


class Outlet:
    """Sends what a stream has as soon as it has it, unless the front asks for a pause.

    Args:
        number: of the request.
        stream: made in another thread; this is its consumer.
        write: sends a frame: its start and its body.
        outlets: where this one is listed until its stream has ended.
    """

    def __init__(
        self,
        number: int,
        stream: Stream[Response],
        write: Callable[[bytes, bytes], None],
        outlets: dict[int, Outlet],
    ) -> None:
        self._number = number
        self._stream = stream
        self._write = write
        self._outlets = outlets
        self._lock = threading.Lock()
        self._opened = False
        self._paused = False
        self._closed = False
        outlets[number] = self
        stream.listen(self._pump)

    def steer(self, kind: int) -> None:
        """CANCEL, PAUSE or RESUME."""
        self._paused = kind == Kind.PAUSE
        if kind == Kind.CANCEL:
            self._stream.cancel()
        self._pump()

    def _pump(self) -> None:
        # The front may be gone, which the process learns elsewhere.
        with self._lock, contextlib.suppress(OSError):
            if not self._closed:
                self._send()

    def _send(self) -> None:
        stream, number = self._stream, self._number
        result = stream.head
        if result is not None and not self._opened:
            self._opened = True
            if stream.whole:
                self._close()
                meta = answer_meta(result)
                self._write(head(Kind.ANSWER, number, meta, len(result.body)), result.body)
                return
            self._write(head(Kind.OPEN, number, answer_meta(result)), b"")
        if self._paused:
            return
        for chunk in stream.take():
            self._write(head(Kind.CHUNK, number, b"", len(chunk)), chunk)
        if stream.ended:
            self._close()
            meta = b'{"broken": true}' if stream.broken else b'{"broken": false}'
            self._write(head(Kind.END, number, meta), b"")

    def _close(self) -> None:
        self._closed = True
        self._outlets.pop(self._number, None)
