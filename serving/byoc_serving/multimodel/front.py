"""The multi-model routes on both fronts: on the ASGI path, and in the Flask application."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flask

from byoc_serving.app import create_app, flask_response, headers_of, invocation_of
from byoc_serving.asgi import AsgiFront, read_all, respond, watched
from byoc_serving.errors import BadBodyError, InternalError, RequestError
from byoc_serving.logs import log
from byoc_serving.multimodel.routes import Action, is_ours, path_of, route
from byoc_serving.relay import relay

if TYPE_CHECKING:
    from byoc_serving.asgi import Bridge, Message, Receive, Send
    from byoc_serving.exchange import Exchange, Response
    from byoc_serving.multimodel.fleet import Fleet
    from byoc_serving.service import Service

#: ``POST /models`` has a name and a path to say.
_BODY_LIMIT_BYTES = 64 * 1024


class ModelsFront(AsgiFront):
    """The ASGI application of a multi-model server.

    Args:
        service: HTTP's rules, with the fleet behind them.
        bridge: the application for every other path.
        fleet: the models.
    """

    def __init__(self, service: Service, bridge: Bridge, fleet: Fleet) -> None:
        super().__init__(service, bridge)
        self._fleet = fleet

    async def _answer(
        self, scope: Message, receive: Receive, send: Send, exchange: Exchange | None
    ) -> None:
        if not is_ours(scope["path"]):
            await super()._answer(scope, receive, send, exchange)
            return
        response = await self._models(scope, receive, exchange)
        if response.stream is not None:
            await relay(response.stream, receive, watched(send, exchange) if exchange else send)
            return
        await respond(send, response)
        if exchange is not None:
            exchange.answered(response)

    async def _models(
        self, scope: Message, receive: Receive, exchange: Exchange | None
    ) -> Response:
        raw_path = path_of(scope["raw_path"], scope["path"])
        try:
            wanted = route(scope["method"], raw_path)
            if wanted.action is Action.INVOKE:
                self._fleet.registry.find(wanted.name)
                return await self._invocation(scope, receive, exchange, wanted.name)
            body = await read_all(receive, _BODY_LIMIT_BYTES)
            return await self._fleet.manage(wanted, scope["query_string"], body)
        except RequestError as error:
            return self._service.refusal(error, scope["headers"])
        except Exception:  # noqa: BLE001 - logged, and every request gets an answer
            log.exception("%s %s failed", scope["method"], scope["path"])
            bug = InternalError("the server failed; the log has the details")
            return self._service.refusal(bug, scope["headers"])


def create_models_app(service: Service, fleet: Fleet) -> flask.Flask:
    """The complete application of a multi-model server, under any WSGI server."""
    app = create_app(service)

    def models() -> flask.Response | None:
        # Before Flask's own routing, which would decode names, and join their slashes.
        if flask.request.path == "/openapi.json":
            return flask_response(_document(service))
        if not is_ours(flask.request.path):
            return None
        try:
            response = _answer(service, fleet)
        except RequestError as error:
            response = service.refusal(error, headers_of(flask.request))
        return flask_response(response)

    app.before_request(models)
    return app


def _document(service: Service) -> Response:
    from byoc_serving import openapi  # noqa: PLC0415 - needs numpy, as no start of this front does
    from byoc_serving.multimodel.openapi import document  # noqa: PLC0415 - for the same reason

    return openapi.answer(flask.request.method, lambda: document(service.settings))


def _answer(service: Service, fleet: Fleet) -> Response:
    request = flask.request
    wanted = route(request.method, _raw_path())
    if wanted.action is Action.INVOKE:
        fleet.registry.find(wanted.name)
        return invocation_of(service, wanted.name)
    body = request.stream.read(_BODY_LIMIT_BYTES + 1)
    if len(body) > _BODY_LIMIT_BYTES:
        raise BadBodyError(f"a body of more than {_BODY_LIMIT_BYTES} bytes has no use here")
    return fleet.run(wanted, request.query_string, body)


def _raw_path() -> bytes:
    """The path as sent, where the server tells it (gunicorn does)."""
    environ = flask.request.environ
    decoded = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "surrogateescape")
    return path_of(str(environ.get("RAW_URI", "")).encode("latin-1"), decoded)
