"""A request on its way to a model's process: JSON facts, and the body or the file it is in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_serving.errors import InternalError
from byoc_serving.exchange import Invocation
from byoc_serving.session import Session
from byoc_serving.spool import FileBody

if TYPE_CHECKING:
    from byoc_serving.multimodel.wire import Frame


def pack(invocation: Invocation) -> tuple[bytes, bytes]:
    """The meta data and the body; a body in a file stays there, and only its address is sent."""
    import orjson  # noqa: PLC0415 - checked by main before anything else loads

    body, session = invocation.body, invocation.session
    headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in invocation.headers]
    # One clock for all processes of the machine; no deadline is infinite, in JSON null.
    facts = {"headers": headers, "id": invocation.request_id, "deadline": invocation.deadline}
    if session is not None:
        facts["session"] = (
            *(session.identifier, str(session.path)),
            *(session.expires, session.is_new),
        )
    if isinstance(body, FileBody):
        facts["file"] = (body.address, len(body))
        return orjson.dumps(facts), b""
    # Bytes already: this copies nothing.
    return orjson.dumps(facts), bytes(body)


def unpack(frame: Frame) -> Invocation:
    """The request again, in the model's process; ``put_away`` it when it has been answered.

    Its body is still to come, by ``fill``.
    """
    import orjson  # noqa: PLC0415 - with torch, in the zygote

    meta = orjson.loads(frame.meta)
    invocation = Invocation.from_headers(
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in meta["headers"]]
    )
    invocation.body = frame.body
    invocation.identify(meta["id"])
    if meta["deadline"] is not None:
        invocation.deadline = meta["deadline"]
    if "session" in meta:
        identifier, path, expires, is_new = meta["session"]
        invocation.session = Session(identifier, Path(path), expires, is_new)
    if "file" in meta:
        invocation.body = _open(*meta["file"])
    return invocation


def _open(address: str, size: int) -> FileBody:
    """A body in a file that the front holds open.

    Raises:
        InternalError: the front has let go of it, or this process may not see it.
    """
    try:
        descriptor = os.open(address, os.O_RDONLY | os.O_CLOEXEC)
        try:
            body = FileBody.of(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise InternalError(
            f"the file of a long body cannot be opened: {error}; is /proc mounted? if not, raise "
            "BYOC_SPOOL_BYTES above the longest body"
        ) from None
    if len(body) != size:
        raise InternalError(f"the file of a long body has {len(body)} bytes, not {size}")
    return body


def put_away(invocation: Invocation) -> None:
    """A request has been answered; a handler that has kept a view of its body keeps the file."""
    body, invocation.body = invocation.body, b""
    if isinstance(body, FileBody):
        with suppress(BufferError):
            body.close()
