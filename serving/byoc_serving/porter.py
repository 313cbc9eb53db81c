"""The process at the door while no worker can answer."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from functools import partial
from typing import TYPE_CHECKING, Any

from byoc_serving.asgi import read_all, respond, watched
from byoc_serving.connection import Protocol
from byoc_serving.errors import (
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from byoc_serving.exchange import Exchange, Response, error_response, no_route, request_id
from byoc_serving.exposition import Collector, answer
from byoc_serving.health import PING_METHODS, diagnosis, ping
from byoc_serving.multimodel.routes import is_ours
from byoc_serving.workers import LoopWorker

if TYPE_CHECKING:
    from byoc_serving.asgi import Message, Receive, Send
    from byoc_serving.observer import Observer
    from byoc_serving.settings import Settings


class OneShotProtocol(Protocol):
    """A connection that closes after its first answer."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._keepalive = 0


class Porter(LoopWorker):
    """Answers while no worker can: 503 and the cause, from a process that never loads anything.

    Workers accept connections only once they have loaded, because importing torch holds the
    interpreter's lock for longer than a ping may take.
    """

    protocol_class = OneShotProtocol

    def load_wsgi(self) -> None:
        """The application is this object."""
        self.asgi = self.watched
        self.observer: Observer | None = self.app.observer(self.app.ledger.porter)

    async def watched(self, scope: Message, receive: Receive, send: Send) -> None:
        """``answer``, observed."""
        if self.observer is None or scope["type"] != "http":
            await self.answer(scope, receive, send)
            return
        exchange = Exchange(scope["method"], scope["path"])
        relayed = False
        try:
            relayed = await self.answer(scope, receive, watched(send, exchange))
        finally:
            # The worker has counted what was relayed to it.
            if not relayed:
                self.observer.response(exchange)

    async def answer(self, scope: Message, receive: Receive, send: Send) -> bool:
        """Answer one request from what the table says; True when a worker was asked to.

        A client that connected while the workers loaded may ask after they have: then the
        question goes to a worker, over a connection that only a worker can accept by now.
        """
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["path"] == "/metrics":
            # In a thread, since a package is imported for it.
            response = await asyncio.get_running_loop().run_in_executor(
                None,
                partial(answer, several=self.app.settings.multi_model),
                scope["method"],
                _accept(scope),
                self._collector(),
            )
            await respond(send, response)
        elif scope["path"] == "/ping" or self.table.porter_listens or not self.table.ready_count:
            await respond(send, self._response(scope["path"], scope["method"]))
        else:
            await respond(send, await self._relay(scope, receive))
            return True
        return False

    def _collector(self) -> Collector | None:
        if self.observer is None or not self.app.settings.metrics:
            return None
        return Collector(
            self.app.ledger, self.table, {"device": "", "front": self.app.settings.front}
        )

    async def _relay(self, scope: Message, receive: Receive) -> Response:
        try:
            body = await read_all(receive, self.app.settings.max_body_bytes)
            return await asyncio.get_running_loop().run_in_executor(
                None, ask_worker, self.app.settings, scope, body
            )
        except RequestError as error:
            return error_response(error, request_id())
        except (OSError, http.client.HTTPException):
            return error_response(UnavailableError("the workers are gone; try again"), request_id())

    def _response(self, path: str, method: str) -> Response:
        error: RequestError
        if path == "/ping" and method in PING_METHODS:
            return ping(self.table)
        models = self.app.settings.multi_model and is_ours(path)
        if models or (path == "/invocations" and method == "POST"):
            error = UnavailableError(diagnosis(self.table)[1], "loading")
        elif path in {"/ping", "/invocations"}:
            allowed = "POST" if path == "/invocations" else ", ".join(PING_METHODS)
            error = MethodNotAllowedError(method, path, allowed)
        else:
            error = NotFoundError(no_route(path, several=self.app.settings.multi_model))
        return error_response(error, request_id())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        ticking = asyncio.create_task(self._tick())
        while not self.leaving:
            wanted = self.table.ready_count == 0
            if wanted and not self.acceptor.listening:
                self.table.porter_listens = True
                self.listen()
            elif not wanted:
                self.unlisten()
                self.table.porter_listens = False
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.01 if wanted else 0.1)
        ticking.cancel()
        await self.drain()


def _accept(scope: Message) -> str:
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    return ",".join(lines)


def ask_worker(settings: Settings, scope: Message, body: bytes) -> Response:
    """The same request, on a connection of our own."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to connect, not listen
    host = everywhere.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port)
    ours = {"connection", "content-length", "transfer-encoding", "expect"}
    with contextlib.closing(connection):
        target = scope["raw_path"] or b"/"
        query = scope["query_string"]
        connection.putrequest(
            scope["method"],
            (target.split(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1"),
            skip_accept_encoding=True,
            skip_host=True,
        )
        for name, value in scope["headers"]:
            if name.decode("latin-1") not in ours:
                connection.putheader(name.decode("latin-1"), value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        headers = tuple(
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in {*ours, "content-type", "date", "server"}
        )
        kind = answer.getheader("Content-Type", "application/json")
        return Response(answer.status, answer.read(), kind, headers)
