"""The process at the door while no worker can answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from byoc_serving.asgi import respond
from byoc_serving.errors import MethodNotAllowedError, NotFoundError, UnavailableError
from byoc_serving.exchange import error_response, no_route, request_id
from byoc_serving.health import PING_METHODS, diagnosis, ping
from byoc_serving.workers import LoopWorker, Protocol

if TYPE_CHECKING:
    from byoc_serving.asgi import Message, Receive, Send
    from byoc_serving.errors import RequestError
    from byoc_serving.exchange import Response


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
        self.asgi = self.answer

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request from what the table says."""
        _ = receive
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await respond(send, self._response(scope["path"], scope["method"]))

    def _response(self, path: str, method: str) -> Response:
        error: RequestError
        if path == "/ping" and method in PING_METHODS:
            return ping(self.table)
        if path == "/invocations" and method == "POST":
            error = UnavailableError(diagnosis(self.table)[1], "loading")
        elif path in {"/ping", "/invocations"}:
            allowed = "POST" if path == "/invocations" else ", ".join(PING_METHODS)
            error = MethodNotAllowedError(method, path, allowed)
        else:
            error = NotFoundError(no_route(path))
        return error_response(error, request_id())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        ticking = asyncio.create_task(self._tick())
        while self.alive:
            wanted = self.table.ready_count == 0
            if wanted and not self.servers:
                self.table.porter_listens = True
                await self.listen(self.protocol_class)
            elif not wanted:
                self.unlisten()
                self.table.porter_listens = False
                # Who has connected and not yet asked shall ask a worker.
                for connection in [c for c in self.connections if c.idle]:
                    connection.close_idle()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.01 if wanted else 0.1)
        ticking.cancel()
        await self.drain()
