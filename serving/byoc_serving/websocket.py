"""The WebSocket side of bidirectional streaming, as an ASGI application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from byoc_serving.conversation import CLOSE, FAILED, GOING_AWAY, NORMAL, TEXT, Messages
from byoc_serving.errors import RequestError, UnavailableError
from byoc_serving.relay import call_soon, start_message

if TYPE_CHECKING:
    from byoc_serving.exchange import Response
    from byoc_serving.relay import Message, Receive, Send
    from byoc_serving.service import Service
    from byoc_serving.streaming import Stream


class WebSockets:
    """The WebSockets of one worker.

    Args:
        service: what they talk to.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: set[asyncio.Event] = set()
        self._stopping = False

    def stop(self) -> None:
        """The server stops: close each with 1001."""
        self._stopping = True
        for news in self._open:
            news.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One WebSocket, from its handshake to its end."""
        await receive()
        messages = Messages()
        try:
            stream = self._service.converse(scope["path"], scope["headers"], messages)
        except RequestError as error:
            await _refuse(send, self._service.refusal(error, scope["headers"]))
            return
        news = asyncio.Event()
        self._open.add(news)
        reading = asyncio.ensure_future(_read(receive, messages))
        reading.add_done_callback(lambda _: news.set())
        loop = asyncio.get_running_loop()
        stream.listen(lambda: call_soon(loop, news.set))
        try:
            refusal = await self._head(stream, news, reading)
            if refusal is not None:
                await _refuse(send, refusal)
                return
            await send({"type": "websocket.accept"})
            news.set()
            await self._write(stream, news, reading, send)
        finally:
            self._open.discard(news)
            reading.cancel()
            messages.end()
            stream.cancel()

    async def _head(
        self, stream: Stream[Response], news: asyncio.Event, reading: asyncio.Future[None]
    ) -> Response | None:
        """Wait until the conversation has begun; what to answer instead when it does not.

        The model may be in another process, which alone can tell.
        """
        while stream.head is None and not reading.done():
            if self._stopping:
                return self._service.refusal(UnavailableError("the server stops", "stopping"))
            await news.wait()
            news.clear()
        head = stream.head
        return head if head is not None and stream.whole else None

    async def _write(
        self,
        stream: Stream[Response],
        news: asyncio.Event,
        reading: asyncio.Future[None],
        send: Send,
    ) -> None:
        """Send what the handler says until one side closes."""
        while not self._stopping:
            await news.wait()
            news.clear()
            for chunk in stream.take():
                if reading.done():
                    return
                if chunk[:1] == CLOSE:
                    await _close(send, int.from_bytes(chunk[1:3], "big"), chunk[3:].decode())
                    return
                if chunk[:1] == TEXT:
                    await send({"type": "websocket.send", "text": chunk[1:].decode()})
                else:
                    await send({"type": "websocket.send", "bytes": chunk[1:]})
            if reading.done():
                return
            if stream.ended:
                # Whoever fails in words has closed with them.
                lost = (FAILED, "the model's process was lost")
                await _close(send, *(lost if stream.broken else (NORMAL, "")))
                return
        await _close(send, GOING_AWAY, "the server stops")


async def _close(send: Send, code: int, reason: str) -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})


async def _read(receive: Receive, messages: Messages) -> None:
    """Hand on what the client sends until it closes; a slow handler makes it wait."""
    loop = asyncio.get_running_loop()
    room = asyncio.Event()
    messages.on_take(lambda: call_soon(loop, room.set))
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            messages.put(message["bytes"] if text is None else text)
            while messages.full:
                room.clear()
                if messages.full:
                    await room.wait()
    finally:
        messages.end()


async def _refuse(send: Send, response: Response) -> None:
    """Answer the handshake with an ordinary response."""
    start = start_message(response, len(response.body))
    await send({**start, "type": "websocket.http.response.start"})
    await send({"type": "websocket.http.response.body", "body": response.body})
