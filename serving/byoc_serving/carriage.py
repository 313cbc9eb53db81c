"""What of a request goes to a model process, and how it becomes a request again there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_serving.decoding import answer_type, decode, worth_doing_here
from byoc_serving.exchange import Invocation
from byoc_serving.faults import classify
from byoc_serving.negotiation import media_type
from byoc_serving.session import Session

if TYPE_CHECKING:
    from byoc_serving.peer import Hello
    from byoc_serving.settings import Settings

#: Answers that are encoded where they arrive; a longer one would hold up a ping.
ENCODE_AT_ONCE_BYTES = 64 * 1024
#: Bodies and answers that are copied where they arrive; the rest is a thread's work.
COPY_AT_ONCE_BYTES = 2 * 1024 * 1024

#: A dtype and a shape.
Form = tuple[str, tuple[int, ...]]


def pack(invocation: Invocation, hello: Hello, settings: Settings) -> tuple[Form | None, Any]:
    """The bytes to send: the array's, when the front decodes this body, else the body's.

    Raises:
        RequestError: the body is bad, or its type or the accepted ones are not ours.
    """
    if hello.plain:
        answer_type(
            invocation, settings.default_accept, own_output=False, line_for_line=settings.batch
        )
    # Above the second limit a thread does it.
    here = worth_doing_here(invocation) or len(invocation.body) > COPY_AT_ONCE_BYTES
    quick = media_type(invocation.content_type) == "application/x-npy"
    if not hello.decodes or not (here or quick):
        return None, invocation.body
    try:
        decode(invocation)
    except Exception as error:
        # Whatever a codec raises is told like what it raises beside the model.
        raise classify("input", error, invocation, default_predict=True) from error
    data, invocation.data = invocation.data, None
    return (data.dtype.str, data.shape), memoryview(data).cast("B") if data.nbytes else b""


def envelope(invocation: Invocation, *, headers: bool) -> tuple[Any, ...]:
    """The rest of the request: what goes with the bytes; the headers where somebody looks."""
    session = invocation.session
    return (
        *(invocation.content_type, invocation.accept, invocation.custom_attributes),
        *(invocation.request_id, invocation.deadline),
        list(invocation.headers) if headers else [],
        # A session with nothing in it is false, and it is one all the same.
        None
        if session is None
        else (session.identifier, str(session.path), session.expires, session.is_new),
    )


def unpack(form: Form | None, body: bytes, enclosed: tuple[Any, ...]) -> Invocation:
    """The request again, in the model process; the bytes are its own from now on."""
    kind, accept, attributes, identity, deadline, headers, session = enclosed
    invocation = Invocation(headers, kind, accept, None, attributes, b"" if form else body)
    invocation.deadline = deadline
    invocation.identify(identity)
    if session:
        identifier, path, expires, is_new = session
        invocation.session = Session(identifier, Path(path), expires, is_new)
    if form:
        import numpy as np  # noqa: PLC0415 - imported by now

        invocation.data = np.frombuffer(bytearray(body), np.dtype(form[0])).reshape(form[1])
    return invocation
