"""What a handler function can learn of its request and add to its response.

Compatible with the context of MMS and TorchServe as handlers use it; see also the plain
attributes ``request_id``, ``custom_attributes`` and ``device``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc_serving.exchange import Invocation
    from byoc_serving.session import Session

#: API InvokeEndpoint: at most 1,024 visible US-ASCII characters (blanks occur in practice).
_ATTRIBUTES = re.compile(r"[\x20-\x7e]{0,1024}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = {"content-length", "transfer-encoding", "connection", "content-type"}


class Context:
    """A request's context; ``model_fn`` gets one without a request.

    Args:
        system_properties: ``model_dir``, ``gpu_id`` (None on a CPU), ``device``, ``batch_size``.
        invocation: the request, if there is one.
    """

    def __init__(
        self, system_properties: Mapping[str, Any], invocation: Invocation | None = None
    ) -> None:
        self.system_properties = dict(system_properties)
        self.manifest: dict[str, Any] = {"model": {}}
        self.model_name = "model"
        self.metrics = None
        self._invocation = invocation
        self._custom_attributes: str | None = None
        self.response_content_type: str | None = None
        self.response_status: int | None = None
        self.response_headers: dict[str, str] = {}

    @property
    def device(self) -> str:
        """Where the model is: ``cpu`` or ``cuda:0``."""
        return str(self.system_properties.get("device", "cpu"))

    @property
    def invocation(self) -> Invocation | None:
        """The request, for the server itself."""
        return self._invocation

    @property
    def request_id(self) -> str:
        """The request's id, as the log and error answers name it."""
        return self._invocation.request_id if self._invocation else ""

    @property
    def session(self) -> Session | None:
        """The state of the client's session, a dict kept until its next request; None: no session.

        A client opens one with ``X-Amzn-SageMaker-Session-Id: NEW_SESSION``. What a request that
        fails has changed is not kept.
        """
        return self._invocation.session if self._invocation else None

    @property
    def session_id(self) -> str | None:
        """The session's id."""
        return self.session.identifier if self.session is not None else None

    def save(self) -> None:
        """Keep the session's state; called by the server when the handler has succeeded."""
        if self.session is not None:
            self.session.save()

    @property
    def request_ids(self) -> dict[int, str]:
        """The id under index 0, as TorchServe has it."""
        return {0: self.request_id}

    @property
    def request_processor(self) -> list[Context]:
        """TorchServe's name for the parts that read and set headers."""
        return [self]

    @property
    def custom_attributes(self) -> str:
        """X-Amzn-SageMaker-Custom-Attributes of the request; set it to send it back.

        Raises:
            ValueError: when set to more than 1,024 characters or others than visible ASCII.
        """
        if self._custom_attributes is not None:
            return self._custom_attributes
        return self._invocation.custom_attributes if self._invocation else ""

    @custom_attributes.setter
    def custom_attributes(self, value: str) -> None:
        if not _ATTRIBUTES.fullmatch(value):
            raise ValueError(
                f"custom attributes of {len(value)} characters: expected at most 1,024, "
                "all visible ASCII"
            )
        self._custom_attributes = value

    def get_request_header(self, idx: int, key: str) -> str | None:
        """A header of the request, whatever the case of its name; None when absent."""
        return self._invocation.header(key) if self._invocation and idx == 0 else None

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """All headers of the request, names in lower case."""
        if not self._invocation or idx != 0:
            return {}
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._invocation.headers
        }

    def get_request_property(self, key: str) -> str | None:
        """MMS's older name for a header."""
        return self.get_request_header(0, key)

    def get_request_id(self, idx: int = 0) -> str | None:
        """The request's id."""
        return self.request_id if idx == 0 else None

    def set_response_content_type(self, idx: int, value: str) -> None:
        """The response's Content-Type, whatever Accept says.

        Raises:
            ValueError: no header value.
        """
        if idx == 0:
            self.response_content_type = header_value(value)

    def get_response_content_type(self, idx: int) -> str | None:
        """What ``set_response_content_type`` has set."""
        return self.response_content_type if idx == 0 else None

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """The response's status; HTTP/1.1 needs no phrase.

        Raises:
            ValueError: no status of a final response.
        """
        _ = phrase
        if not isinstance(code, int) or not 200 <= code <= 599:
            raise ValueError(f"status {code!r}: expected a number from 200 to 599")
        if idx == 0:
            self.response_status = code

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """A further header of the response.

        Raises:
            ValueError: no valid header, or one that the server itself sets.
        """
        if not _TOKEN.fullmatch(key) or key.lower() in _OURS:
            raise ValueError(f"response header {key!r}: not a name that a handler can set")
        if idx == 0:
            self.response_headers[key] = header_value(value)

    # TorchServe has both names.
    add_response_header = set_response_header

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the handler has added to the response."""
        pairs = list(self.response_headers.items())
        if self._custom_attributes is not None:
            pairs.append(("X-Amzn-SageMaker-Custom-Attributes", self._custom_attributes))
        if self.session is not None:
            pairs.extend(self.session.headers())
        return tuple(pairs)


def header_value(value: str) -> str:
    """The value of a header, as it was given.

    Raises:
        ValueError: it has characters that would end or break the header.
    """
    if not _VALUE.fullmatch(value):
        raise ValueError(f"response header value {value[:60]!r}: has characters no header may have")
    return value
