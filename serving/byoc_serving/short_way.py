"""A connection's part of the short way of an invocation (``straight``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gunicorn.asgi.protocol import ASGIProtocol

from byoc_serving.rendering import CLOSE
from byoc_serving.straight import PREPARED, Straight, parse

if TYPE_CHECKING:
    from byoc_serving.exchange import Exchange, Response


class ShortWay(ASGIProtocol):  # type: ignore[misc] # gunicorn is untyped
    """gunicorn's protocol, but ordinary invocations do not go through it."""

    transport: Any

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        #: Times that bytes have come; with a parser in C nothing else shows a partial head.
        self.heard = 0
        #: The client sends nothing more, but may wait for its answer.
        self.half_closed = False
        #: The request on the short way, if there is one.
        self.straight: Straight | None = None
        self._prepared: tuple[Exchange, Response] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.straight is not None:
            self.straight.cancel()
        if self._prepared is not None and self._prepared[1].stream is not None:
            self._prepared[1].stream.cancel()
        super().connection_lost(exc)

    def begin(self, data: bytes) -> None:
        """A request's first bytes; often all of them."""
        self.heard += 1
        service = self.worker.service
        # Until gunicorn waits for this connection's next request, it has not done with the last.
        # The first may come before its task has run at all.
        waits = self._awaiting_request or not self.req_count
        parsed = parse(data) if waits and not self.worker.leaving else None
        if parsed is None or (service.sessions and service.sessions.concerns("", parsed[1])):
            # (A request of a session may have to wait for others.)
            super().data_received(data)
            return
        self._cancel_keepalive_timer()
        if self.req_count:
            self.req_count += 1
        # (Else its task counts this one when it begins to wait; counted here too, it would be taken
        # for the second, and the connection for one that has been idle since the first.)
        self.straight = Straight(self, service, data)
        self.straight.run(*parsed)

    def answered(self, head: bytes, body: bytes, ahead: bytes) -> None:
        """The request on the short way has its answer.

        Args:
            head: of the response, without its empty line.
            body: complete.
            ahead: what the client has sent since.
        """
        self.straight = None
        last = self.worker.leaving or not self.worker.alive or (self.half_closed and not ahead)
        self._safe_write(b"".join((head, CLOSE if last else b"", b"\r\n", body)))
        if last:
            self.close_idle()
        elif ahead:
            self.data_received(ahead)

    def go_round(self, data: bytes, prepared: tuple[Exchange, Response]) -> None:
        """The request's answer takes the long way, for which gunicorn has to see the request.

        Args:
            data: the request, and what the client has sent since.
            prepared: for the application, which hands it back.
        """
        self.straight = None
        self._prepared = prepared
        super().data_received(data)

    def _build_http_scope(self, *args: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._build_http_scope(*args)
        if self._prepared is not None:
            scope[PREPARED], self._prepared = self._prepared, None
        return scope
