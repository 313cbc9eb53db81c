"""Sending a stream over ASGI: each chunk leaves when it is there, a client that left ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from byoc_serving.exchange import Response
    from byoc_serving.streaming import Stream

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


def start_message(response: Response, length: int | None) -> Message:
    """The ASGI message that begins a response; without a length the body is chunked."""
    headers = [(b"content-type", response.content_type.encode("latin-1", "replace"))]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    for name, value in response.headers:
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    return {"type": "http.response.start", "status": response.status, "headers": headers}


async def relay(stream: Stream[Response], receive: Receive, send: Send) -> None:
    """Send a streaming response to its end.

    Args:
        stream: made somewhere else, in a thread or another process.
        receive: tells of the client's leaving; the request's body has been read.
        send: to the client; waits while the client does not read.

    Raises:
        asyncio.CancelledError: the response breaks off. The server closes the connection then,
            without the chunk that would make the body complete.
    """
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    gone = asyncio.ensure_future(_left(receive))

    def left(_: object) -> None:
        stream.cancel()
        news.set()

    gone.add_done_callback(left)
    task = asyncio.current_task()
    left_s = stream.left_s()
    overdue = None
    if left_s is not None and task is not None:
        overdue = loop.call_later(left_s, task.cancel)
    stream.listen(lambda: call_soon(loop, news.set))
    try:
        while stream.head is None and not gone.done():
            await news.wait()
            news.clear()
        if not gone.done():
            await _send(stream, news, gone, send)
    finally:
        if overdue is not None:
            overdue.cancel()
        gone.cancel()
        stream.cancel()


async def _send(
    stream: Stream[Response], news: asyncio.Event, gone: asyncio.Future[None], send: Send
) -> None:
    """Send the head, then chunks until the end or until the client has left."""
    head = stream.head
    assert head is not None  # noqa: S101 - the caller has waited for it
    if stream.whole:
        await send(start_message(head, len(head.body)))
        await send({"type": "http.response.body", "body": head.body})
        return
    await send(start_message(head, None))
    while not gone.done():
        for chunk in stream.take():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if stream.ended:
            break
        await news.wait()
        news.clear()
    if not stream.ended or stream.broken:
        raise asyncio.CancelledError
    await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        continue


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: Any) -> None:
    """Have the loop call something, from any thread."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        # The loop is closed: the worker is gone, and so are the requests.
        return
