"""The Flask application: every route, under any WSGI server."""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import WebsocketMismatch

from byoc_serving import execution, exposition, health
from byoc_serving.chunks import Chunks
from byoc_serving.client import Client
from byoc_serving.deadline import ABANDONED
from byoc_serving.errors import (
    BadBodyError,
    BodyTimeoutError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
    UpgradeRequiredError,
)
from byoc_serving.exchange import Response, error_response, no_route
from byoc_serving.handler import BIDIRECTIONAL_PATH
from byoc_serving.logs import log
from byoc_serving.sessions import SessionBusyError
from byoc_serving.spool import Spool
from byoc_serving.watched import EXCHANGE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.exchange import Body, Exchange, Invocation
    from byoc_serving.service import Service
    from byoc_serving.sessions import Sessions

_CHUNK_BYTES = 1024 * 1024
#: How often a waiting thread looks whether its client is still there.
_WATCH_S = 1.0
_ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def create_app(service: Service) -> flask.Flask:
    """The application for one service.

    Routes: ``/ping`` (GET, HEAD, POST), ``/invocations`` (POST), ``/execution-parameters``,
    ``/metrics`` and ``/openapi.json`` (GET); any other path is a 404 in JSON, any other method a
    405 with Allow.
    """
    app = flask.Flask("byoc_serving", static_folder=None)

    def route(path: str, answer: Callable[[], Response]) -> None:
        # Views answer each method themselves, so that both fronts say the same.
        app.add_url_rule(
            path,
            path,
            lambda: flask_response(answer()),
            methods=_ALL_METHODS,
            provide_automatic_options=False,
        )

    route("/ping", lambda: service.ping(flask.request.method))
    route("/invocations", lambda: invocation_of(service))
    route(
        BIDIRECTIONAL_PATH,
        lambda: service.refusal(_no_upgrade(service), headers_of(flask.request)),
    )
    route("/execution-parameters", lambda: _execution_parameters(service))
    route(
        "/metrics",
        lambda: exposition.answer(
            flask.request.method,
            flask.request.headers.get("Accept", ""),
            service.collector,
            several=service.settings.multi_model,
        ),
    )
    route("/openapi.json", lambda: service.document(flask.request.method))

    def refused(error: Exception) -> flask.Response:
        if isinstance(error, WebsocketMismatch):
            error = _no_upgrade(service)
        told = _translated(error, service)
        return flask_response(service.refusal(told, headers_of(flask.request)))

    app.register_error_handler(HTTPException, refused)
    app.register_error_handler(Exception, refused)
    return app


def _translated(error: Exception, service: Service) -> RequestError:
    request = flask.request
    if isinstance(error, RequestError):
        return error
    if isinstance(error, HTTPException):
        if error.code == 404:
            return NotFoundError(no_route(request.path, several=service.settings.multi_model))
        if error.code == 405:
            allowed = ", ".join(health.PING_METHODS) if request.path == "/ping" else "POST"
            return MethodNotAllowedError(request.method, request.path, allowed)
        if error.code is not None and error.code < 500:
            translated = RequestError(error.description or error.name)
            translated.status = error.code
            return translated
    log.error("request failed in the front", exc_info=error)
    return InternalError("the server failed; the log has the details under this request_id")


def headers_of(request: flask.Request) -> list[tuple[bytes, bytes]]:
    """A request's headers as the server's core has them."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
        if value or name.lower() not in {"content-type", "content-length"}
    ]


def _no_upgrade(service: Service) -> RequestError:
    """Why an ordinary request gets nothing on a WebSocket's path."""
    path = flask.request.path
    if service.settings.front == "wsgi":
        return NotFoundError(
            f"no WebSocket on {path[:100]} with BYOC_FRONT=wsgi; unset it for the ASGI front"
        )
    if path not in (service.backend.bidirectional_paths or ()):
        return NotFoundError(no_route(path, several=service.settings.multi_model))
    return UpgradeRequiredError(
        f"{path} is a WebSocket: send Upgrade: websocket with Connection: Upgrade",
        (("Upgrade", "websocket"),),
    )


def _execution_parameters(service: Service) -> Response:
    if not service.settings.execution_parameters:
        missing = no_route(flask.request.path, several=service.settings.multi_model)
        return service.refusal(NotFoundError(missing), headers_of(flask.request))
    if flask.request.method not in ("GET", "HEAD"):
        error = MethodNotAllowedError(flask.request.method, flask.request.path, "GET, HEAD")
        return service.refusal(error, headers_of(flask.request))
    return execution.parameters(service.settings, service.table.required)


def invocation_of(service: Service, model: str = "") -> Response:
    """Answer the current request as an invocation (of one model of several)."""
    headers = headers_of(flask.request)
    observer = service.observer
    exchange: Exchange | None = flask.request.environ.get(EXCHANGE_KEY)
    if observer is not None and exchange is not None:
        observer.invoked(exchange, headers)
    if flask.request.method != "POST":
        error = MethodNotAllowedError(flask.request.method, "/invocations", "POST")
        return service.refusal(error, headers)
    try:
        invocation = service.admit(headers)
    except RequestError as error:
        return service.refusal(error, headers)
    if observer is not None and exchange is not None:
        observer.admitted(exchange, invocation)
    try:
        invocation.model = model
        invocation.body = _body(service, invocation)
        if service.sessions is not None and service.sessions.concerns(
            invocation.session_id, invocation.body
        ):
            answer = _session(service.sessions, invocation)
            if answer is not None:
                service.release(invocation)
                return answer
        invocation.future = Future()
        service.submit(invocation)
    except RequestError as error:
        service.release(invocation)
        return error_response(error, invocation.request_id)
    except BaseException:
        service.release(invocation)
        raise
    return _answer(invocation)


def _answer(invocation: Invocation) -> Response:
    """Wait for the answer, for as long as the client does.

    gunicorn tells the socket; under another server the answer is waited for in any case.
    """
    connected = flask.request.environ.get("gunicorn.socket")
    if connected is None:
        response: Response = invocation.future.result()
        return response
    may_probe = flask.request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
    client = Client(connected.fileno(), may_probe=may_probe)
    while True:
        try:
            response = invocation.future.result(_WATCH_S)
        except FutureTimeoutError:  # noqa: PERF203 - once a second
            if client.gone() and invocation.future.cancel():
                return ABANDONED
        else:
            return response


def _session(sessions: Sessions, invocation: Invocation) -> Response | None:
    """Begin a request of a session, after those before it."""
    until = time.monotonic() + sessions.patience_s
    while True:
        try:
            return sessions.begin(invocation)
        except SessionBusyError:
            if time.monotonic() > until:
                raise
        time.sleep(sessions.pause_s)


def _body(service: Service, invocation: Invocation) -> Body:
    """The whole body, with or without Content-Length, never more than the limit."""
    environ: dict[str, Any] = flask.request.environ
    source = environ["wsgi.input"]
    left = invocation.length
    if left is None and not (
        environ.get("wsgi.input_terminated")
        or "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "")
    ):
        return b""
    spool = Spool(service.spooling)
    try:
        _fill(spool, service, invocation, source)
        return spool.body()
    except BaseException:
        spool.close()
        raise


def _fill(spool: Spool, service: Service, invocation: Invocation, source: Any) -> None:
    """Read a body to its end."""
    left = invocation.length
    received = 0
    while left is None or left > 0:
        try:
            chunk = source.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        except OSError as error:
            raise BodyTimeoutError(
                f"the client sent {received} bytes and then stopped: {error}"
            ) from None
        except Exception as error:  # noqa: BLE001 - each WSGI server has its own
            raise BadBodyError(f"the body's transfer coding is malformed: {error}") from None
        if not chunk:
            break
        received += len(chunk)
        service.grown(invocation, received)
        if spool.add(chunk):
            spool.flush()
        if left is not None:
            left -= len(chunk)


def flask_response(response: Response) -> flask.Response:
    """A response as Flask sends it, also one that is still being made."""
    body: bytes | Chunks = response.body
    if response.stream is not None:
        body = Chunks(response.stream, flask.request.environ.get("gunicorn.socket"))
        response = body.head()
        if response.stream is None:
            body = response.body
    return flask.Response(
        body,
        response.status,
        list(response.headers),
        content_type=response.content_type,
    )
