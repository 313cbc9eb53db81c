"""The default input_fn and output_fn as HTTP sees them: body to array, Accept to a type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc_serving.negotiation import choose, media_type, preferred

if TYPE_CHECKING:
    from byoc_serving.exchange import Invocation


#: Bodies that are decoded where they arrive; longer ones would hold up a ping there.
AT_ONCE_BYTES = 64 * 1024


def worth_doing_here(invocation: Invocation) -> bool:
    """Whether decoding is short enough for the thread that also answers pings.

    A picture's bytes say nothing of its pixels: 60 KB may be 64 million of them.
    """
    short = len(invocation.body) <= AT_ONCE_BYTES
    return short and not media_type(invocation.content_type).startswith("image/")


def decode(invocation: Invocation) -> None:
    """The default input_fn up to the array; safe in any thread.

    Images become float32 ``[1, C, H, W]`` between 0 and 1, as torchvision's ToTensor has it.

    Raises:
        RequestError: the body is not what its type says, or the type is not supported.
    """
    import numpy as np  # noqa: PLC0415 - the master imports this module too

    from byoc_serving import codecs  # noqa: PLC0415 - it imports numpy

    data = codecs.decode(invocation.body, invocation.content_type)
    if media_type(invocation.content_type).startswith("image/"):
        planes = data[None] if data.ndim == 2 else data.transpose(2, 0, 1)
        data = np.ascontiguousarray(planes[None], dtype=np.float32)
        data /= np.float32(255)
    invocation.data = data
    invocation.body = b""


def answer_type(
    invocation: Invocation, default: str, *, own_output: bool, line_for_line: bool = False
) -> str:
    """The type to answer in.

    Args:
        invocation: whose Accept counts.
        default: the type without an Accept.
        own_output: a function of the user's makes the body, so any type may be asked for.
        line_for_line: records that come a line each are answered so, unless something else is
            asked for: a batch transform job joins its output to its input.

    Raises:
        NotAcceptableError: none of ours is accepted.
    """
    from byoc_serving import codecs  # noqa: PLC0415 - it imports numpy

    if own_output:
        return preferred(invocation.accept, default)
    known = media_type(default) in codecs.OUTPUT_TYPES
    fallback = media_type(default) if known else "application/json"
    own = media_type(invocation.content_type)
    if line_for_line and own in codecs.LINE_TYPES and fallback == "application/json":
        fallback = own
    return choose(invocation.accept, codecs.OUTPUT_TYPES, fallback)
