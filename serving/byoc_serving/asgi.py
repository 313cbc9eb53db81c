"""The ASGI front: ``/ping`` and ``/invocations`` as a thin path, Flask behind a bridge.

Runs on the event loop, so nothing here may take long: decoding of small bodies at most.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from byoc_serving.backend import settle
from byoc_serving.errors import (
    BadBodyError,
    BodyTimeoutError,
    MethodNotAllowedError,
    RequestError,
)
from byoc_serving.exchange import Exchange, error_response
from byoc_serving.relay import call_soon, relay, start_message
from byoc_serving.sessions import SessionBusyError
from byoc_serving.spool import Spool
from byoc_serving.straight import PREPARED
from byoc_serving.websocket import WebSockets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from byoc_serving.backend import Delivery
    from byoc_serving.exchange import Body, Invocation, Response
    from byoc_serving.service import Service
    from byoc_serving.sessions import Sessions

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Bridge = Callable[[Message, Receive, Send], Awaitable[None]]


class AsgiFront:
    """The ASGI application of one worker.

    Args:
        service: what it serves.
        bridge: the application for every other path.
    """

    def __init__(self, service: Service, bridge: Bridge) -> None:
        self._service = service
        self._bridge = bridge
        self._websockets = WebSockets(service)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def start(self, on_settled: Callable[[], None]) -> None:
        """Start loading; call on the running loop."""
        self._thread = threading.get_ident()
        self._loop = loop = asyncio.get_running_loop()
        self._service.start(self._deliver, lambda: call_soon(loop, on_settled), loop)

    def stop(self) -> None:
        """The server begins to stop: what would last for ever is ended."""
        self._websockets.stop()

    def _deliver(self, pairs: Delivery) -> None:
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        if threading.get_ident() == self._thread:
            settle(pairs)
            return
        # One wake-up of the loop for the whole batch.
        call_soon(self._loop, settle, pairs)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._websockets(scope, receive, send)
            return
        prepared = scope.get(PREPARED)
        if prepared is not None:
            await self._prepared(receive, send, *prepared)
            return
        path: str = scope["path"]
        if path[:1] != "/" and "://" in path:
            # absolute-form (RFC 9112 section 3.2.2), as proxies send it
            path = scope["path"] = f"/{path.partition('://')[2].partition('/')[2]}"
        observer = self._service.observer
        if observer is None:
            await self._answer(scope, receive, send, None)
            return
        exchange = Exchange(scope["method"], path)
        try:
            await self._answer(scope, receive, send, exchange)
        finally:
            observer.response(exchange)

    async def _prepared(
        self, receive: Receive, send: Send, exchange: Exchange, response: Response
    ) -> None:
        """Send an answer that there is already (``straight``)."""
        try:
            await read_all(receive, self._service.settings.max_body_bytes)
            if response.stream is not None:
                await relay(response.stream, receive, watched(send, exchange))
            else:
                await respond(send, response)
                exchange.answered(response)
        finally:
            if self._service.observer is not None:
                self._service.observer.response(exchange)

    async def _answer(
        self, scope: Message, receive: Receive, send: Send, exchange: Exchange | None
    ) -> None:
        path = scope["path"]
        if path == "/invocations":
            response = await self._invocation(scope, receive, exchange)
            if response.stream is not None:
                told = watched(send, exchange) if exchange else send
                await relay(response.stream, receive, told)
                return
        elif path == "/ping":
            response = self._service.ping(scope["method"])
        else:
            await self._bridge(scope, receive, watched(send, exchange) if exchange else send)
            return
        await respond(send, response)
        if exchange is not None:
            exchange.answered(response)

    async def _invocation(
        self, scope: Message, receive: Receive, exchange: Exchange | None, model: str = ""
    ) -> Response:
        service = self._service
        headers = scope["headers"]
        observer = service.observer
        if observer is not None and exchange is not None:
            observer.invoked(exchange, headers)
        if scope["method"] != "POST":
            error = MethodNotAllowedError(scope["method"], "/invocations", "POST")
            return service.refusal(error, headers)
        try:
            invocation = service.admit(headers)
        except RequestError as error:
            return service.refusal(error, headers)
        if observer is not None and exchange is not None:
            observer.admitted(exchange, invocation)
        try:
            invocation.model = model
            invocation.body = await self._body(invocation, receive)
            if service.sessions is not None and service.sessions.concerns(
                invocation.session_id, invocation.body
            ):
                answer = await self._session(service.sessions, invocation)
                if answer is not None:
                    service.release(invocation)
                    return answer
            invocation.future = asyncio.get_running_loop().create_future()
            service.submit(invocation)
        except RequestError as error:
            service.release(invocation)
            return error_response(error, invocation.request_id)
        except BaseException:
            service.release(invocation)
            raise
        response: Response = await invocation.future
        return response

    async def _session(self, sessions: Sessions, invocation: Invocation) -> Response | None:
        """Begin a request of a session, after those before it."""
        until = time.monotonic() + sessions.patience_s
        while True:
            try:
                return sessions.begin(invocation)
            except SessionBusyError:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(sessions.pause_s)

    async def _body(self, invocation: Invocation, receive: Receive) -> Body:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message["body"]
            self._service.grown(invocation, len(body))
            return body
        spool = Spool(self._service.spooling)
        try:
            return await self._long_body(invocation, spool, message, receive)
        except BaseException:
            spool.close()
            raise

    async def _long_body(
        self, invocation: Invocation, spool: Spool, message: Message, receive: Receive
    ) -> Body:
        """A body of several pieces; the disk is written to beside the loop."""
        loop = asyncio.get_running_loop()
        received = 0
        while True:
            if message["type"] == "http.disconnect":
                raise BodyTimeoutError("the client stopped sending within the body; send all of it")
            chunk = message.get("body", b"")
            received += len(chunk)
            self._service.grown(invocation, received)
            if spool.add(chunk):
                await loop.run_in_executor(None, spool.flush)
            if not message.get("more_body"):
                return spool.body()
            message = await receive()


def watched(send: Send, exchange: Exchange) -> Send:
    """``send`` that notes the status and the bytes of what passes."""

    async def noting(message: Message) -> None:
        await send(message)
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
        elif message["type"] == "http.response.body":
            exchange.sent_bytes += len(message.get("body", b""))

    return noting


async def respond(send: Send, response: Response) -> None:
    """Send a complete response."""
    await send(start_message(response, len(response.body)))
    await send({"type": "http.response.body", "body": response.body})


async def read_all(receive: Receive, limit_bytes: int) -> bytes:
    """A whole body for the bridge.

    Raises:
        BadBodyError: it is over the limit or incomplete.
    """
    chunks: list[bytes] = []
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadBodyError("the client stopped sending")
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > limit_bytes:
            raise BadBodyError(f"a body of more than {limit_bytes} bytes has no use here")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)
