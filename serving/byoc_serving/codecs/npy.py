"""application/x-npy: numpy's own format, read by hand so that nothing in it is ever executed.

The header is checked against the body's length before anything is allocated
(format: numpy.lib.format's documentation, versions 1.0 to 3.0).
"""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from byoc_serving.codecs.encodings import compressed
from byoc_serving.codecs.plain import numbers
from byoc_serving.errors import BadBodyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
#: Plain numbers: byte order, kind, bytes an element.
_DESCR = re.compile(r"[<>|=](?:b1|[iu][1248]|f[248])")
_HEADER_LIMIT = 10_000
_MAX_DIMENSIONS = 64
#: Headers seen, parsed: clients repeat themselves, and parsing costs more than all the rest.
_seen: dict[bytes, tuple[np.dtype[Any], bool, tuple[int, ...], int]] = {}
_SEEN_LIMIT = 64


def decode(body: bytes) -> NDArray[Any]:
    """An array with the machine's byte order, C-contiguous, writable; float64 becomes float32.

    Raises:
        BadBodyError: no npy, an object or structured dtype, or a length that does not fit.
    """
    start = _start(body)
    head = body[:start]
    parsed = _seen.get(head)
    if parsed is None:
        parsed = _header(body, start)
        if len(head) <= 256:
            if len(_seen) >= _SEEN_LIMIT:
                # Not kept for ever: a client that makes up headers would shut out the others'.
                _seen.clear()
            _seen[bytes(head)] = parsed
    dtype, fortran, shape, count = parsed
    if len(body) - start != count * dtype.itemsize:
        raise BadBodyError(
            f"npy: the header says shape {shape} of {dtype}, {count * dtype.itemsize} bytes; "
            f"{len(body) - start} bytes follow"
        )
    if count == 0:
        raise BadBodyError(f"npy: the array is empty, its shape is {shape}")
    flat = np.frombuffer(body, dtype=dtype, count=count, offset=start)
    array = flat.reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "f" and dtype.itemsize == 8:
        with np.errstate(over="ignore"):
            return array.astype(np.float32, order="C")
    return array.astype(dtype.newbyteorder("="), order="C")


def encode(prediction: Any) -> bytes:
    """An array as npy, version 1.0.

    Raises:
        NotAcceptableError: the prediction is no array of numbers.
    """
    array = numbers(prediction, "fiubc", "application/x-npy carries one array of numbers")
    # 0-d stays 0-d: ascontiguousarray would make it 1-d.
    contiguous = np.asarray(array, order="C")
    return _preamble(contiguous.dtype.str, contiguous.shape) + contiguous.tobytes()


@lru_cache(maxsize=_SEEN_LIMIT)
def _preamble(descr: str, shape: tuple[int, ...]) -> bytes:
    """What comes before the numbers."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    padding = -(len(MAGIC) + 4 + len(header) + 1) % 64
    header += b" " * padding + b"\n"
    return b"".join((MAGIC, b"\x01\x00", len(header).to_bytes(2, "little"), header))


def _start(body: bytes) -> int:
    """Where the data begin."""
    if body[:6] != MAGIC:
        raise BadBodyError(
            compressed(body) or "not npy: the body does not begin with \\x93NUMPY; use numpy.save"
        )
    if len(body) < 12:
        raise BadBodyError(f"npy: cut off after {len(body)} bytes, within the header")
    version = body[6], body[7]
    if version == (1, 0):
        start = 10 + int.from_bytes(body[8:10], "little")
    elif version in {(2, 0), (3, 0)}:
        start = 12 + int.from_bytes(body[8:12], "little")
    else:
        raise BadBodyError(f"npy: version {version[0]}.{version[1]}; expected 1.0, 2.0 or 3.0")
    if start > _HEADER_LIMIT:
        raise BadBodyError(f"npy: the header says {start} bytes; the limit is {_HEADER_LIMIT}")
    if start > len(body):
        raise BadBodyError(
            f"npy: cut off within the header, which needs {start} bytes of {len(body)}"
        )
    return start


def _header(body: bytes, start: int) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    text = body[10 if body[6] == 1 else 12 : start].decode("utf-8", "replace").strip()
    try:
        fields = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        fields = None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise BadBodyError("npy: the header is no dictionary of descr, fortran_order and shape")
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if isinstance(descr, str) and "O" in descr:
        raise BadBodyError(
            "npy: the dtype is object, which means pickled data; that is never loaded, send numbers"
        )
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
        raise BadBodyError(
            f"npy: the dtype is {str(descr)[:60]!r}; expected booleans, integers or floats"
        )
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(size) is int and 0 <= size < 1 << 62 for size in shape)
        or not isinstance(fortran, bool)
    ):
        # repr, which refuses to write very long numbers, is not asked for them.
        seen = "too long" if len(text) > 200 else f"{shape}"
        raise BadBodyError(
            f"npy: the shape is {seen}; expected up to {_MAX_DIMENSIONS} sizes of 0 or more"
        )
    return np.dtype(descr), fortran, shape, math.prod(shape)
