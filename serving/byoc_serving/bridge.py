"""A WSGI application as an ASGI one, for the routes that are not worth a path of their own."""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from byoc_serving.asgi import read_all, respond
from byoc_serving.errors import RequestError
from byoc_serving.exchange import Response, error_response, request_id
from byoc_serving.relay import start_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.asgi import Message, Receive, Send

_BODY_LIMIT_BYTES = 1024 * 1024


class Bridge:
    """Runs a WSGI application in the loop's thread pool, one call a request.

    Args:
        make_app: called once, at the first request or by ``warm``.
    """

    def __init__(self, make_app: Callable[[], Any]) -> None:
        self._make_app = make_app
        self._app: Any = None
        self._making = asyncio.Lock()

    async def warm(self) -> None:
        """Make the application now."""
        async with self._making:
            if self._app is None:
                self._app = await asyncio.get_running_loop().run_in_executor(None, self._make_app)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._app is None:
            await self.warm()
        try:
            body = await read_all(receive, _BODY_LIMIT_BYTES)
        except RequestError as error:
            await respond(send, error_response(error, request_id()))
            return
        environ = environ_of(scope, body)
        response = await asyncio.get_running_loop().run_in_executor(None, _call, self._app, environ)
        if scope["method"] == "HEAD":
            await _head(send, response)
        else:
            await respond(send, response)


async def _head(send: Send, response: Response) -> None:
    """Send a head alone; its length is that of the answer to GET (RFC 9110 section 8.6)."""
    told = [value for name, value in response.headers if name.lower() == "content-length"]
    length = int(told[0]) if told else None
    other = tuple(pair for pair in response.headers if pair[0].lower() != "content-length")
    await send(start_message(replace(response, headers=other), length))
    await send({"type": "http.response.body", "body": b""})


def environ_of(scope: Message, body: bytes) -> dict[str, Any]:
    """The WSGI environment of an ASGI request (PEP 3333)."""
    host, port = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": scope.get("root_path", ""),
        "PATH_INFO": scope["path"].encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(host),
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("", 0))[0],
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ[key] = value.decode("latin-1")
        elif key not in {"CONTENT_LENGTH", "TRANSFER_ENCODING"}:
            text = value.decode("latin-1")
            full = f"HTTP_{key}"
            environ[full] = f"{environ[full]},{text}" if full in environ else text
    return environ


def _call(app: Any, environ: dict[str, Any]) -> Response:
    """Run the application to the end of its response."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], None]:
        _ = exc_info
        started[:] = [(status, headers)]
        return chunks.append

    chunks: list[bytes] = []
    result = app(environ, start_response)
    try:
        chunks.extend(result)
    finally:
        if hasattr(result, "close"):
            result.close()
    status, headers = started[0]
    kind = next((v for n, v in headers if n.lower() == "content-type"), "text/plain")
    left_out = {"content-type", "content-length"}
    if environ["REQUEST_METHOD"] == "HEAD":
        # The body is empty, and its length that of the one that GET gets.
        left_out.remove("content-length")
    rest = tuple((n, v) for n, v in headers if n.lower() not in left_out)
    return Response(int(status.split(" ", 1)[0]), b"".join(chunks), kind, rest)
