"""The threads that run streaming handlers, one a stream, a bounded number at once.

A generator that waits for its next token must hold up neither the model's thread nor ``/ping``,
so each runs in a thread of its own, in torch's inference mode. Generators of several requests
therefore run at the same time, and beside ``predict_fn``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving.current import working_on
from byoc_serving.errors import DeadlineError, InternalError, RequestError, UnavailableError
from byoc_serving.exchange import Response, error_response, request_id
from byoc_serving.framing import Framing
from byoc_serving.streaming import Stream, StreamCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from byoc_serving.context import Context
    from byoc_serving.exchange import Invocation

log = logging.getLogger(__name__)


def is_stream(result: Any) -> bool:
    """Whether a handler's result is an iterator, or an asynchronous one: its items are chunks."""
    kind = type(result)
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__") or hasattr(kind, "__aiter__")


def discard(result: Any) -> None:
    """Close a generator that nobody will run."""
    if inspect.isgenerator(result):
        result.close()


class Streams:
    """The streams of one process.

    Args:
        most: streams at once.
        timeout_s: how long one may last.
    """

    def __init__(self, most: int, timeout_s: float) -> None:
        self._most = most
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: dict[Stream[Response], threading.Thread] = {}

    @property
    def count(self) -> int:
        """Streams that run now."""
        with self._lock:
            return len(self._running)

    def start(
        self, run: Callable[[Stream[Response]], None], *, endless: bool = False
    ) -> Stream[Response]:
        """Run a producer in a thread of its own.

        Args:
            run: produces the response; whatever way it ends, the stream ends with it.
            endless: it may last as long as both sides like.

        Raises:
            UnavailableError: there are as many streams as there may be.
        """
        stream: Stream[Response] = Stream(None if endless else self._timeout_s)

        def work() -> None:
            try:
                run(stream)
            except BaseException:
                log.exception("a stream's thread broke")
            finally:
                with self._lock:
                    self._running.pop(stream, None)
                if stream.head is None:
                    error = InternalError("the stream ended without a word; see the log")
                    stream.answer(error_response(error, request_id()))
                # Where the producer has ended its stream this changes nothing.
                stream.fail()

        thread = threading.Thread(target=work, name="stream", daemon=True)
        with self._lock:
            if len(self._running) >= self._most:
                raise UnavailableError(
                    f"{self._most} streams are running, as many as this worker takes; try again, "
                    "or raise BYOC_MAX_STREAMS",
                    "full",
                )
            self._running[stream] = thread
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._running.pop(stream, None)
            raise UnavailableError(f"no thread for this stream: {error}; try again") from None
        return stream

    def close(self, timeout_s: float) -> bool:
        """Cancel what runs; True when every thread has ended."""
        with self._lock:
            running = list(self._running.items())
        for stream, _ in running:
            stream.cancel()
        for _, thread in running:
            thread.join(timeout_s)
        return not any(thread.is_alive() for _, thread in running)


@dataclass
class Generation:
    """One streaming response: a handler's items on their way into a stream.

    Attributes:
        items: an iterator or an asynchronous one.
        context: the request's; the handler may set type, status and headers before its first
            item.
        identifier: the request's id.
        accept: the Accept header, or "".
        convert: applied to each item first (the handler's output_fn).
        failed: what an exception means for the client.
    """

    items: Any
    context: Context
    identifier: str
    accept: str
    convert: Callable[[Any], Any] | None
    failed: Callable[[Exception], RequestError]
    _framing: Framing | None = None

    def run(self, stream: Stream[Response]) -> None:
        """Produce the whole response."""
        import torch  # noqa: PLC0415 - imported by now

        try:
            with torch.inference_mode(), working_on(*self._requests()):
                produce(self.items, lambda item: self._chunk(stream, item), stream)
            self._open(stream, b"")
            self.context.save()
            stream.end()
        except (StreamCancelledError, asyncio.CancelledError, asyncio.TimeoutError):
            log.debug("request %s: the client left its stream", self.identifier)
            stream.fail()
        except Exception as error:  # noqa: BLE001 - any failure is this request's own
            self._break_off(stream, error)

    def _requests(self) -> tuple[Invocation, ...]:
        """The request, for the log lines of its handler."""
        return () if self.context.invocation is None else (self.context.invocation,)

    def _chunk(self, stream: Stream[Response], item: Any) -> bytes:
        if stream.late:
            raise DeadlineError(
                "the stream lasted too long and was ended; send shorter requests, or raise "
                "BYOC_STREAM_TIMEOUT_SECONDS"
            )
        if self.convert is not None:
            item = self.convert(item)
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], str):
            body, kind = item
            if "/" in kind:
                item = body
                if self._framing is None and self.context.response_content_type is None:
                    self.context.response_content_type = kind
        self._open(stream, item)
        assert self._framing is not None  # noqa: S101 - opening has set it
        return self._framing(item)

    def _open(self, stream: Stream[Response], first: Any) -> None:
        if self._framing is not None:
            return
        context = self.context
        framing = Framing.choose(self.accept, first, context.response_content_type)
        head = Response(
            context.response_status or 200, b"", framing.content_type, context.headers()
        )
        framing(first)
        self._framing = framing
        stream.open(head)

    def _break_off(self, stream: Stream[Response], error: Exception) -> None:
        fault = self.failed(error)
        if self._framing is None:
            stream.answer(error_response(fault, self.identifier))
            return
        last = self._framing.error(fault, self.identifier)
        try:
            if last:
                stream.feed(last)
        except StreamCancelledError:
            log.debug("request %s: the client left its stream", self.identifier)
        stream.fail()


def produce(items: Any, chunk_of: Callable[[Any], bytes], stream: Stream[Response]) -> None:
    """Run a handler's iterator, asynchronous or not, to its end, and close it, whatever way.

    Args:
        items: what the handler's function returned.
        chunk_of: an item's bytes; an empty chunk is not sent.
        stream: gets the chunks; cancelling it stops the iterator at its next item, an
            asynchronous one where it waits.

    Raises:
        StreamCancelledError, asyncio.CancelledError: the stream was cancelled.
        Exception: whatever the iterator raises.
    """
    if hasattr(type(items), "__next__"):
        _produce(items, chunk_of, stream)
    else:
        run_async(_produce_async(items, chunk_of, stream), stream)


def _produce(items: Any, chunk_of: Callable[[Any], bytes], stream: Stream[Response]) -> None:
    try:
        for item in items:
            chunk = chunk_of(item)
            if chunk:
                stream.write(chunk)
            elif stream.cancelled:
                raise StreamCancelledError
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


async def _produce_async(
    items: Any, chunk_of: Callable[[Any], bytes], stream: Stream[Response]
) -> None:
    drained = drained_event(stream)
    iterator = items.__aiter__()
    try:
        async for item in iterator:
            chunk = chunk_of(item)
            while stream.full:
                drained.clear()
                if stream.full:
                    await asyncio.wait_for(drained.wait(), stream.left_s())
            if chunk:
                stream.feed(chunk)
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


def drained_event(stream: Stream[Response]) -> asyncio.Event:
    """An event of the running loop that is set whenever the stream's consumer has made room."""
    loop = asyncio.get_running_loop()
    drained = asyncio.Event()
    stream.on_drain(lambda: soon(loop, drained.set))
    return drained


def run_async(main: Coroutine[Any, Any, None], stream: Stream[Response]) -> None:
    """Run a coroutine to its end in this thread; cancelling the stream cancels it.

    Raises:
        asyncio.CancelledError: the stream was cancelled.
    """

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        loop = asyncio.get_running_loop()
        stream.on_cancel(lambda: soon(loop, task.cancel))
        await main

    asyncio.run(cancellable())


def soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have a loop call something, from any thread; nothing happens where it has ended."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        # The loop has ended, and with it whoever would have been told.
        return
