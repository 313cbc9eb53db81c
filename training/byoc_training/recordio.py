"""RecordIO, the framing of records in SageMaker's Pipe mode (``RecordWrapperType=RecordIO``).

The format is MXNet's (dmlc-core, ``recordio.h``): a record is the magic number 0xced7230a and a
word, both 32 bits little-endian; the word's lower 29 bits are the length of the content, which
follows, padded with zeros to a multiple of four bytes. The upper three bits say whether it is
whole (0), or the first (1), a middle (2) or the last part (3) of one that has the magic number
in it, at each place where two parts meet.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEAD = struct.Struct("<II")
_LENGTH_BITS = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


class RecordError(ValueError):
    """The stream is no RecordIO, or is cut off: one line with the place."""


def read(stream: BinaryIO) -> Iterator[bytes]:
    """The records of a stream, one by one; holds one at a time.

    Raises:
        RecordError: With the number of bytes read before the bad record.
    """
    place = 0
    parts: list[bytes] = []
    while True:
        head = _exactly(stream, _HEAD.size, place, may_end=not parts)
        if not head:
            return
        magic, word = _HEAD.unpack(head)
        kind, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
        if magic != MAGIC:
            raise RecordError(
                f"byte {place}: expected RecordIO's magic number 0x{MAGIC:08x}, got 0x{magic:08x}"
            )
        if kind > _LAST or (kind in (_MIDDLE, _LAST)) != bool(parts):
            raise RecordError(f"byte {place}: a part of kind {kind} is out of its order")
        padded = _exactly(stream, length + -length % 4, place, may_end=False)
        place += _HEAD.size + len(padded)
        parts.append(padded[:length])
        if kind in (_WHOLE, _LAST):
            yield _MAGIC_BYTES.join(parts)
            parts = []


def write(stream: BinaryIO, record: bytes) -> None:
    """Append a record.

    Raises:
        ValueError: A part of it has 2**29 bytes or more.
    """
    parts = _split(record)
    for number, part in enumerate(parts):
        kind = _WHOLE
        if len(parts) > 1:
            kind = _FIRST if number == 0 else _LAST if number == len(parts) - 1 else _MIDDLE
        if len(part) >> _LENGTH_BITS:
            raise ValueError(f"a part of {len(part)} bytes; RecordIO holds fewer than 2**29")
        stream.write(_HEAD.pack(MAGIC, kind << _LENGTH_BITS | len(part)))
        stream.write(part + bytes(-len(part) % 4))


def _split(record: bytes) -> list[bytes]:
    """Cut where the magic number stands at a multiple of four bytes."""
    parts: list[bytes] = []
    begin = at = 0
    while (found := record.find(_MAGIC_BYTES, at)) >= 0:
        if found % 4:
            at = found + 1
            continue
        parts.append(record[begin:found])
        begin = at = found + 4
    return [*parts, record[begin:]]


def _exactly(stream: BinaryIO, count: int, place: int, *, may_end: bool) -> bytes:
    """So many bytes; none at the end of the stream where it may end."""
    data = stream.read(count)
    while 0 < len(data) < count:
        # A pipe gives what there is.
        more = stream.read(count - len(data))
        if not more:
            break
        data += more
    if len(data) == count or (not data and may_end):
        return data
    raise RecordError(f"byte {place}: the stream ends within a record")
