"""Complete responses as the bytes of HTTP/1.1."""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from gunicorn.asgi.protocol import (
    _CACHED_SERVER_HEADER,
    _get_cached_date_header,
    _get_cached_status_line,
)

from byoc_serving.exchange import error_response, request_id

if TYPE_CHECKING:
    from byoc_serving.errors import RequestError
    from byoc_serving.exchange import Response

CLOSE = b"Connection: close\r\n"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")
#: Headers that say how a response ends, or that are added here.
_OURS = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})
#: No body, or one that must not be (RFC 9110, sections 15.3.5, 15.3.6, 15.4.5).
_BODILESS = frozenset({204, 205, 304})


def wire(error: RequestError) -> bytes:
    """An error as a complete response that ends its connection."""
    return rendered(error_response(error, request_id()), CLOSE)


def rendered(response: Response, more: bytes = b"") -> bytes:
    """A complete response of our own as bytes, with more header lines."""
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n",
        f"Content-Type: {response.content_type}\r\n",
        f"Content-Length: {len(response.body)}\r\n",
        *(f"{name}: {value}\r\n" for name, value in response.headers),
    ]
    return "".join(lines).encode("latin-1") + more + b"\r\n" + response.body


def simple(response: Response) -> bytes | None:
    """The head of a complete response, still without its empty line, as gunicorn would send it.

    None where the response has rules of its own: a stream, a status without a body, a header that
    a handler has got wrong or that concerns the connection.
    """
    if response.stream is not None or response.status < 200 or response.status in _BODILESS:
        return None
    if _VALUE.fullmatch(response.content_type) is None:
        return None
    head = b"%s%d\r\n" % (_beginning(response.status, response.content_type), len(response.body))
    for name, value in response.headers:
        plain = _NAME.fullmatch(name) and _VALUE.fullmatch(value)
        if not plain or name.lower() in _OURS:
            return None
        head += f"{name}: {value}\r\n".encode("ascii")
    # untyped, as all of gunicorn is
    added: bytes = _CACHED_SERVER_HEADER + _get_cached_date_header()
    return head + added


@lru_cache(maxsize=256)
def _beginning(status: int, content_type: str) -> bytes:
    line: bytes = _get_cached_status_line((1, 1), status)
    return line + b"content-type: " + content_type.encode("ascii") + b"\r\ncontent-length: "
