"""The short way of an invocation: one that has come whole is parsed here, and answered at once.

gunicorn's parser, request, scope, body receiver, task and response cost a small request of one
image about as much again as everything else around the forward. They are for what needs them: a
request that is not in every respect the ordinary one (one Content-Length, nothing that changes
the framing or the connection, every byte there), every other path, and an answer that is a
stream or has a status or headers with rules of their own.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Protocol

from byoc_serving.errors import InternalError, RequestError
from byoc_serving.exchange import Exchange, error_response
from byoc_serving.rendering import simple

if TYPE_CHECKING:
    from byoc_serving.exchange import Invocation, Response
    from byoc_serving.service import Service

log = logging.getLogger(__name__)

BEGIN = b"POST /invocations HTTP/1.1\r\n"
#: Longer heads, and more fields, are the parser's to measure.
_MAX_HEAD_BYTES = 4096
_MAX_FIELDS = 64
#: Names without the underscores that a proxy may have made of something else.
_FIELDS = re.compile(rb"(?:[A-Za-z0-9-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+")
_LENGTH = re.compile(rb"[0-9]{1,9}")
#: Whoever sends one of these wants more than an answer.
_SPECIAL = frozenset(
    {b"expect", b"transfer-encoding", b"upgrade", b"te", b"trailer"}
    | {b"x-amzn-sagemaker-session-id"}
)
#: What a client may send before it has its answer.
_MAX_AHEAD_BYTES = 64 * 1024
#: In an ASGI scope: the exchange, and the answer that is there already.
PREPARED = "byoc.prepared"


class Connection(Protocol):
    """What a request on the short way needs of its connection (``short_way``)."""

    transport: Any

    def answered(self, head: bytes, body: bytes, ahead: bytes) -> None:
        """The answer; whatever the client has sent since comes next."""

    def go_round(self, data: bytes, prepared: tuple[Exchange, Response]) -> None:
        """The answer has to take the long way."""


class Straight:
    """A request on the short way; stands in for the future that its answer is set in.

    Args:
        connection: where it came from.
        service: what answers it.
        data: the whole request.
    """

    __slots__ = ("_answered", "_cancelled", "_connection", "_data", "_exchange", "_invocation",
                 "_paused", "_service", "ahead")  # fmt: skip

    def __init__(self, connection: Connection, service: Service, data: bytes) -> None:
        self._connection = connection
        self._service = service
        self._data = data
        self._exchange = Exchange("POST", "/invocations")
        self._invocation: Invocation | None = None
        self._answered = self._cancelled = self._paused = False
        #: What the client has sent since.
        self.ahead = b""

    def run(self, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Have it answered.

        Args:
            headers: names in lower case and values.
            body: complete.
        """
        service, exchange = self._service, self._exchange
        observer = service.observer
        if observer is not None:
            observer.invoked(exchange, headers)
        try:
            invocation = service.admit(headers)
        except RequestError as error:
            self.set_result(service.refusal(error, headers))
            return
        self._invocation = invocation
        if observer is not None:
            observer.admitted(exchange, invocation)
        try:
            invocation.body = body
            service.grown(invocation, len(body))
            invocation.future = self
            service.submit(invocation)
        except Exception as error:
            service.release(invocation)
            if not isinstance(error, RequestError):
                log.exception("a request could not be queued")
                error = InternalError("the server failed; its log says more")
            self.set_result(error_response(error, invocation.request_id))

    def done(self) -> bool:
        """Whether an answer would come too late."""
        return self._answered or self._cancelled

    def cancelled(self) -> bool:
        """Whether the client has left."""
        return self._cancelled

    def cancel(self) -> None:
        """The client has left."""
        if not self.done():
            self._cancelled = True
            self._told()

    def set_result(self, response: Response) -> None:
        """The answer; call on the loop."""
        self._answered = True
        if self._paused:
            self._connection.transport.resume_reading()
        head = simple(response)
        if head is None:
            self._connection.go_round(self._data + self.ahead, (self._exchange, response))
            return
        self._connection.answered(head, response.body, self.ahead)
        self._exchange.answered(response)
        self._told()

    def _told(self) -> None:
        observer = self._service.observer
        if observer is not None:
            observer.response(self._exchange)

    def add(self, data: bytes) -> None:
        """The client sends more before it has its answer."""
        self.ahead += data
        if len(self.ahead) > _MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._connection.transport.pause_reading()


def parse(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    """Headers and body of an ordinary invocation that has come whole; None: not one of those.

    Args:
        data: all that has come since the last request.
    """
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES) if data.startswith(BEGIN) else -1
    if end < 0:
        return None
    head = data[len(BEGIN) : end + 2]
    if _FIELDS.fullmatch(head) is None:
        return None
    headers = []
    for line in head.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    if len(headers) > _MAX_FIELDS or _length(headers) != len(data) - end - 4:
        return None
    return headers, data[end + 4 :]


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The length of an ordinary request's body; None: the parser has to judge it."""
    lengths, hosts = [], 0
    for name, value in headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"host":
            hosts += 1 if value else 2
        elif name in _SPECIAL or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
    if hosts != 1 or len(lengths) != 1 or _LENGTH.fullmatch(lengths[0]) is None:
        return None
    return int(lengths[0])
