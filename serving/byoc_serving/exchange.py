"""One request and its response, as plain data that no front owns."""

from __future__ import annotations

import json
import math
import mmap
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from byoc_serving.errors import RequestError
    from byoc_serving.session import Session
    from byoc_serving.streaming import Stream

#: SageMaker hands the caller at most 2,048 characters of an error's body (API ModelError).
ERROR_BODY_LIMIT = 2048
_MESSAGE_LIMIT = 1000
_ID = re.compile(r"[\x21-\x7e]{1,128}")
JSON = "application/json"
#: Nobody waited for the answer; the number is nginx's.
CLIENT_LEFT = 499


class Batch:
    """What the requests of one batch have in common.

    Attributes:
        began: when the model took them, in seconds of the monotonic clock.
        ended: when it had the last one's answer.
        forward_s: how long it predicted; on a GPU, until its work was handed over.
        requests: how many they were.
    """

    __slots__ = ("began", "ended", "forward_s", "requests")

    def __init__(self, began: float, ended: float, forward_s: float, requests: int) -> None:
        self.began = began
        self.ended = ended
        self.forward_s = forward_s
        self.requests = requests


class Span(Protocol):
    """A request's trace."""

    def current(self) -> AbstractContextManager[Any]:
        """Spans that are made inside become its children."""


#: A request's body; long ones are in a file (``spool``).
Body = bytes | mmap.mmap


@dataclass(frozen=True)
class Response:
    """What goes back: the body is complete, the headers exclude its type and length.

    With a ``stream`` everything else is still to come: the stream's head is the Response.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    stream: Stream[Response] | None = None
    #: The id that an error's body names.
    request_id: str = ""


@dataclass
class Invocation:
    """One ``POST /invocations`` on its way through the server.

    Attributes:
        headers: names in lower case and values, as received.
        content_type: the Content-Type header as sent, or the default.
        accept: the Accept header as sent, or "".
        body: the complete body.
        size_bytes: what admission counts for the body.
        deadline: the second of the monotonic clock from which an answer is of no use.
        data: the decoded body once a codec has seen it.
        future: where the front waits for the Response.
        session_id: the session header as sent, or "".
        session: the session that this request belongs to; it travels to wherever the handler runs.
        model: which model of a multi-model server is meant.
        answer_type: the type to answer in, once that is decided.
        queued_at: when it was queued, in seconds of the monotonic clock.
        batch: when and with how many others the model took it.
        span: its trace, when tracing is on.
    """

    headers: Sequence[tuple[bytes, bytes]]
    content_type: str = JSON
    accept: str = ""
    length: int | None = None
    custom_attributes: str = ""
    body: Body = b""
    size_bytes: int = 0
    deadline: float = math.inf
    data: Any = None
    future: Any = None
    session_id: str = ""
    session: Session | None = None
    model: str = ""
    # Class attributes until they are set: a request pays for none of them.
    answer_type: str = field(default="", init=False, repr=False)
    queued_at: float = field(default=0.0, init=False, repr=False)
    batch: Batch | None = field(default=None, init=False, repr=False)
    span: Span | None = field(default=None, init=False, repr=False)
    _request_id: str = field(default="", repr=False)

    @classmethod
    def from_headers(cls, headers: Sequence[tuple[bytes, bytes]]) -> Invocation:
        """Pick out the headers that matter; missing Content-Type means JSON."""
        invocation = cls(headers)
        for name, value in headers:
            if name == b"content-type":
                invocation.content_type = value.decode("latin-1").strip() or JSON
            elif name == b"content-length":
                invocation.length = int(value) if value.isdigit() else None
            elif name == b"accept":
                # Several Accept lines are one list (RFC 9110 section 5.2).
                text = value.decode("latin-1").strip()
                invocation.accept = f"{invocation.accept},{text}" if invocation.accept else text
            elif name == b"x-amzn-sagemaker-custom-attributes":
                invocation.custom_attributes = value.decode("latin-1")
            elif name == b"x-amzn-sagemaker-session-id":
                invocation.session_id = value.decode("latin-1")
        if not invocation.accept:
            # The asynchronous and streaming APIs name it so.
            invocation.accept = invocation.header("x-amzn-sagemaker-accept") or ""
        return invocation

    def header(self, name: str) -> str | None:
        """A header's value, whatever the case of its name."""
        wanted = name.lower().encode("latin-1", "replace")
        for key, value in self.headers:
            if key == wanted:
                return value.decode("latin-1")
        return None

    def identify(self, identifier: str) -> None:
        """Set the request's id: another process has found it."""
        self._request_id = identifier

    @property
    def request_id(self) -> str:
        """The caller's inference id, else the platform's request id, else our own."""
        if not self._request_id:
            self._request_id = request_id(
                self.header("x-amzn-sagemaker-inference-id"), self.header("x-amzn-requestid")
            )
        return self._request_id


class Exchange:
    """A request as the front saw it, told once its answer has left.

    Attributes:
        method: its method.
        path: its path, decoded.
        began: when the front began with it, in seconds of the monotonic clock.
        status: the answer's status; 499 when the client left before.
        sent_bytes: of the answer's body.
        request_id: as the answer named it, or "".
        invocation: what was admitted, if it was.
        headers: the request's, names in lower case.
        trace: its span, when tracing is on.
    """

    __slots__ = (
        "began", "headers", "invocation", "method", "path", "request_id", "sent_bytes", "status",
        "trace",
    )  # fmt: skip

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self.began = time.monotonic()
        self.status = CLIENT_LEFT
        self.sent_bytes = 0
        self.request_id = ""
        self.invocation: Invocation | None = None
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.trace: Any = None

    def answered(self, response: Response) -> None:
        """A complete response has left."""
        self.status = response.status
        self.sent_bytes = len(response.body)
        self.request_id = response.request_id


def request_id(*candidates: str | None) -> str:
    """The first candidate of visible ASCII, else a fresh one of 16 hexadecimal digits."""
    for candidate in candidates:
        if candidate and _ID.fullmatch(candidate.strip()):
            return candidate.strip()
    return secrets.token_hex(8)


def one_line(text: str, limit: int = _MESSAGE_LIMIT) -> str:
    """Text as a single line without control characters, cut with an ellipsis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def no_route(path: str, *, several: bool) -> str:
    """The message of a 404, on a server of one model or of several."""
    ask = "POST /models/<name>/invoke, and GET and POST /models" if several else "POST /invocations"
    return f"no route {path[:100]}; there are GET /ping and {ask}"


def error_response(error: RequestError, identifier: str) -> Response:
    """An error as the JSON that every front sends, below 2,048 bytes."""
    message, limit = one_line(str(error)), _MESSAGE_LIMIT
    while True:
        content = {"code": error.code, "message": message, "request_id": identifier}
        body = json.dumps({"error": content}, ensure_ascii=False).encode("utf-8", "replace")
        if len(body) < ERROR_BODY_LIMIT:
            return Response(error.status, body, JSON, error.headers, request_id=identifier)
        limit -= 100
        message = one_line(message, limit)
