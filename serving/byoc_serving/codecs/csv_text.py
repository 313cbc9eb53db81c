"""text/csv: rows of numbers, no header line."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from byoc_serving.codecs.encodings import not_utf8
from byoc_serving.codecs.plain import numbers
from byoc_serving.errors import BadBodyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACE = re.compile(r"could not convert string (.*) to \S+ at row (\d+), column (\d+)")
_RAGGED = re.compile(r"the number of columns changed from (\d+) to (\d+) at row (\d+)")
_BOM = b"\xef\xbb\xbf"
#: Read at a time: numpy's reader takes up to 33 times the bytes that it is given.
_SLICE_BYTES = 64 * 1024


def decode(body: bytes) -> NDArray[np.float32]:
    """Comma-separated numbers as float32 ``[rows, columns]``; blank lines are skipped.

    ``nan`` and ``inf`` are numbers here. A quoted field ends on its line.

    Raises:
        BadBodyError: not UTF-8, empty, ragged, or not numbers; with the row, counted from 1.
    """
    place = len(_BOM) if body.startswith(_BOM) else 0
    if body.isspace() or place == len(body):
        raise BadBodyError("the body has no rows, only blank lines")
    table = _Table(body.count(b",") + body.count(b"\n") + 1)
    while place < len(body):
        end, whole = _cut(body, place, within=table.partial > 0)
        table.add(_text(body, place, end), whole=whole)
        # Past the comma or the line end.
        place = end + 1
    if table.partial:
        # The body ends with the comma that the last piece was cut at.
        table.add("", whole=True)
    return table.array()


class _Table:
    """Rows of equal length, filled from the first to the last.

    Args:
        limit: numbers that there can be.
    """

    def __init__(self, limit: int) -> None:
        # Pages that are never written to take no memory; joining the slices would, twice over.
        self._numbers = np.empty(limit, np.float32)
        self._filled = self._rows = self._columns = 0
        #: Numbers of the last row, when the row is not complete.
        self.partial = 0

    def add(self, text: str, *, whole: bool) -> None:
        """What comes next: whole rows, or a piece of a row that is longer than a slice.

        Args:
            text: without the comma or the line end that it was cut at.
            whole: whether the last row ends here.
        """
        piece = self.partial > 0 or not whole
        if piece and not text.strip():
            raise BadBodyError(
                f"row {self._rows + 1}, column {self.partial + 1}: expected a number, got an "
                "empty field"
            )
        if not text.strip("\r\n"):
            return
        rows = self._read(text)
        self._numbers[self._filled : self._filled + rows.size] = rows.reshape(-1)
        self._filled += rows.size
        columns = self.partial + rows.shape[1]
        if not whole:
            self.partial = columns
            return
        if self._columns not in {0, columns}:
            raise _ragged(self._columns, columns, self._rows + 1)
        self._columns, self.partial = columns, 0
        self._rows += len(rows)

    def array(self) -> NDArray[np.float32]:
        """All rows; nothing can be added after."""
        if not self._rows:
            raise BadBodyError("the body has no rows, only blank lines")
        self._numbers.resize(self._filled, refcheck=False)
        return self._numbers.reshape(self._rows, self._columns)

    def _read(self, text: str) -> NDArray[np.float32]:
        if '"' in text and any(line.count('"') % 2 for line in text.split("\n")):
            raise BadBodyError(
                f"after row {self._rows}: a quotation mark has no other on its line; send numbers "
                "without quotation marks"
            )
        try:
            with np.errstate(over="ignore"):
                rows: NDArray[np.float32] = np.loadtxt(
                    io.StringIO(text),
                    dtype=np.float32,
                    delimiter=",",
                    comments=None,
                    quotechar='"',
                    ndmin=2,
                )
        except ValueError as error:
            raise self._explained(str(error)) from None
        return rows

    def _explained(self, message: str) -> BadBodyError:
        """A complaint of numpy's about a slice, with the place in the body."""
        place = _PLACE.search(message)
        if place:
            row, column = self._rows + int(place[2]) + 1, self.partial + int(place[3])
            seen = place[1][:40] if place[1] != "''" else "an empty field"
            return BadBodyError(f"row {row}, column {column}: expected a number, got {seen}")
        ragged = _RAGGED.search(message)
        if ragged:
            columns, other, row = map(int, ragged.groups())
            return _ragged(columns, other, self._rows + row)
        detail = message.splitlines()[0].split(";")[0]
        return BadBodyError(f"not rows of numbers: {detail}")


def _ragged(columns: int, other: int, row: int) -> BadBodyError:
    return BadBodyError(
        f"not rows of numbers: the number of columns changed from {columns} to {other} at row {row}"
    )


def _cut(body: bytes, place: int, *, within: bool) -> tuple[int, bool]:
    """Where the slice that begins at a place ends, and whether a row ends there.

    Args:
        body: all of it.
        place: the slice's first byte.
        within: whether the place is within a row, which is then read to its end alone.
    """
    limit = place + _SLICE_BYTES
    end = body.find(b"\n", place, limit) if within else body.rfind(b"\n", place, limit)
    if limit >= len(body) and (end < 0 or not within):
        return len(body), True
    if end >= 0:
        return end, True
    comma = body.rfind(b",", place, limit)
    if comma < 0:
        raise BadBodyError(
            f"bytes {place} to {limit} have neither a comma nor a line end; expected "
            "comma-separated numbers"
        )
    return comma, False


def _text(body: bytes, place: int, end: int) -> str:
    try:
        return body[place:end].decode()
    except UnicodeDecodeError as error:
        raise BadBodyError(not_utf8(body, place + error.start)) from None


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
