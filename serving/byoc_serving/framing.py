"""How the items of a streaming handler become bytes, by the response's type.

============================  =====================  ==========================  =============
type                          bytes                  str                         anything else
============================  =====================  ==========================  =============
``text/event-stream``         as they are            ``data:`` lines, an event   ``data:`` JSON
``application/jsonlines``     as they are            a JSON string, a line       JSON, a line
every other                   as they are            UTF-8                       JSON, a line
============================  =====================  ==========================  =============

A str that already is an event (it starts with a field and ends with an empty line), or already
ends its line, leaves as it is: handlers written for other servers do their own framing.

An error after the first item is a last event ``event: error`` or a last line, with the same JSON
object as an ordinary error (``{"error": {"code", "message", "request_id"}}``); other types cannot
carry one. In every type the chunked body then breaks off without its last chunk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import JSON, error_response
from byoc_serving.negotiation import choose, media_type, preferred

if TYPE_CHECKING:
    from byoc_serving.errors import RequestError

EVENTS = "text/event-stream"
LINES = "application/jsonlines"
_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
#: A field's name, or the colon of a comment (HTML Living Standard, section 9.2.6).
_EVENT = re.compile(r"(?:data|event|id|retry)?:.*(?:\n\n|\r\n\r\n|\r\r)", re.DOTALL)


@dataclass(frozen=True)
class Framing:
    """The framing of one response.

    Attributes:
        content_type: the response's Content-Type.
    """

    content_type: str

    @classmethod
    def choose(cls, accept: str, first: Any, own_type: str | None = None) -> Framing:
        """The framing that a request's Accept and the first item ask for.

        Args:
            accept: the Accept header, or "".
            first: the first item.
            own_type: the type that the handler has set.

        Raises:
            NotAcceptableError: the item cannot be sent as any accepted type.
        """
        if own_type is not None:
            return cls(own_type)
        if isinstance(first, (bytes, bytearray, memoryview)):
            return cls(preferred(accept, _BYTES))
        if isinstance(first, str):
            return cls(preferred(accept, _TEXT))
        kind = choose(accept, (LINES, EVENTS, JSON), LINES)
        return cls(LINES if kind == JSON else kind)

    @property
    def _kind(self) -> str:
        return media_type(self.content_type)

    def __call__(self, item: Any) -> bytes:
        """An item's bytes; none for an empty one.

        Raises:
            TypeError: it is nothing that JSON can say.
        """
        from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        if isinstance(item, str):
            return self._text(item)
        text = codecs.encode(item, JSON)
        return b"data: " + text + b"\n\n" if self._kind == EVENTS else text + b"\n"

    def _text(self, item: str) -> bytes:
        if self._kind == EVENTS and not _EVENT.fullmatch(item):
            lines = re.split(r"\r\n|\r|\n", item)
            return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
        if self._kind == LINES and not item.endswith("\n"):
            from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

            return codecs.encode(item, JSON) + b"\n"
        return item.encode()

    def error(self, error: RequestError, identifier: str) -> bytes:
        """The last item of a response that breaks off; nothing where the type has no room."""
        body = error_response(error, identifier).body
        if self._kind == EVENTS:
            return b"event: error\ndata: " + body + b"\n\n"
        return body + b"\n" if self._kind == LINES else b""
