"""text/csv: rows of numbers, no header line."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from byoc_serving.codecs.plain import numbers
from byoc_serving.errors import BadBodyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACE = re.compile(r"could not convert string (.*) to \S+ at row (\d+), column (\d+)")


def decode(body: bytes) -> NDArray[np.float32]:
    """Comma-separated numbers as float32 ``[rows, columns]``; blank lines are skipped.

    ``nan`` and ``inf`` are numbers here.

    Raises:
        BadBodyError: not UTF-8, empty, ragged, or not numbers; with the row, counted from 1.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadBodyError(f"not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    if not text.strip():
        raise BadBodyError("the body has no rows, only blank lines")
    try:
        with np.errstate(over="ignore"):
            array: NDArray[np.float32] = np.loadtxt(
                io.StringIO(text),
                dtype=np.float32,
                delimiter=",",
                comments=None,
                quotechar='"',
                ndmin=2,
            )
    except ValueError as error:
        place = _PLACE.search(str(error))
        if place:
            row, column = int(place[2]) + 1, int(place[3])
            seen = place[1][:40] if place[1] != "''" else "an empty field"
            raise BadBodyError(
                f"row {row}, column {column}: expected a number, got {seen}"
            ) from None
        detail = str(error).splitlines()[0].split(";")[0]
        raise BadBodyError(f"not rows of numbers: {detail}") from None
    return array


def encode(prediction: Any) -> bytes:
    """One line a row; dimensions after the second are flattened; float32 in shortest form.

    Raises:
        NotAcceptableError: the prediction is no array of numbers.
    """
    array = numbers(prediction, "fiub", "text/csv carries only rows of numbers")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(-1, 1)
    # numpy's own text of a scalar is the shortest that reads back as the same float32.
    return b"".join(",".join(map(str, row)).encode() + b"\n" for row in rows)
