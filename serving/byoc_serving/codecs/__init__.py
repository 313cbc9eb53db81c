"""Bodies to arrays and arrays to bodies: one module a format, no torch, nothing pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from byoc_serving.codecs import csv_text, images, json_text, npy
from byoc_serving.codecs.plain import rows_of
from byoc_serving.errors import BadBodyError, UnsupportedTypeError
from byoc_serving.negotiation import media_type

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from numpy.typing import NDArray

DECODERS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    "application/json": json_text.decode,
    "application/jsonlines": json_text.decode_lines,
    "text/csv": csv_text.decode,
    "application/x-npy": npy.decode,
    "image/png": images.decode,
    "image/jpeg": images.decode,
}
ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "application/json": json_text.encode,
    "text/csv": csv_text.encode,
    "application/x-npy": npy.encode,
    "application/jsonlines": json_text.encode_lines,
}
INPUT_TYPES = tuple(DECODERS)
OUTPUT_TYPES = tuple(ENCODERS)
#: Read where they lie; the other decoders need bytes in memory.
BUFFER_TYPES = frozenset({"application/x-npy"})
#: A record a line.
LINE_TYPES = frozenset({"application/jsonlines", "text/csv"})
#: Bodies that the toolkit hands to input_fn as str; the others stay bytes.
TEXT_TYPES = frozenset({"application/json", "application/jsonlines", "text/csv"})


def decode(body: bytes | mmap.mmap | str, content_type: str) -> NDArray[Any]:
    """A request's body as an array.

    JSON, JSON Lines and CSV become float32; npy keeps its dtype (float64 becomes float32,
    another byte order the machine's); images become uint8 ``[H, W]`` or ``[H, W, 3]``.

    Args:
        body: as the server handed it to input_fn, or a file's map.
        content_type: its Content-Type; parameters are ignored.

    Raises:
        BadBodyError: the body is not what its type says (answers 400).
        UnsupportedTypeError: no such type here (answers 415).
    """
    kind = media_type(content_type)
    decoder = DECODERS.get(kind)
    if decoder is None:
        hint = (
            "; raw bytes have no meaning of their own, so the handler needs an input_fn for them"
            if kind == "application/octet-stream"
            else ""
        )
        raise UnsupportedTypeError(
            f"cannot read {kind[:100]!r}{hint}; send one of {', '.join(INPUT_TYPES)}"
        )
    if isinstance(body, str):
        data = body.encode()
    elif isinstance(body, bytes):
        data = body
    else:
        # A map that a buffer's decoder reads as it would read bytes.
        data = cast("bytes", body) if kind in BUFFER_TYPES else bytes(body)
    if not data:
        raise BadBodyError(f"the body is empty (0 bytes); expected {kind}")
    return decoder(data)


def encode(prediction: Any, accept: str = "application/json") -> bytes:
    """A prediction as a body of one of ``OUTPUT_TYPES``.

    Args:
        prediction: an array, a tensor, a number, or nested lists, tuples and dicts of them.
        accept: the type to write; parameters are ignored.

    Raises:
        NotAcceptableError: this type cannot carry it (answers 406).
        TypeError: nothing here can encode it.
    """
    return ENCODERS[media_type(accept)](rows_of(prediction))
