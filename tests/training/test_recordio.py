from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoc_training import recordio

MAGIC = struct.pack("<I", recordio.MAGIC)


def written(records: list[bytes]) -> bytes:
    stream = io.BytesIO()
    for record in records:
        recordio.write(stream, record)
    return stream.getvalue()


PIECES = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9)), max_size=6).map(b"".join)


@given(st.lists(PIECES, max_size=5))
def test_what_is_written_is_read(records):
    assert list(recordio.read(io.BytesIO(written(records)))) == records


def test_the_bytes_are_mxnets():
    # By hand from the description of the format.
    whole = b"\x0a\x23\xd7\xce" + b"\x05\x00\x00\x00" + b"hello\x00\x00\x00"
    assert written([b"hello"]) == whole
    parts = MAGIC + struct.pack("<I", 1 << 29 | 4) + b"abcd"
    parts += MAGIC + struct.pack("<I", 3 << 29 | 2) + b"ef\x00\x00"
    assert written([b"abcd" + MAGIC + b"ef"]) == parts
    # Not at a multiple of four: nothing to be taken for a record's beginning.
    assert written([b"a" + MAGIC])[4:8] == struct.pack("<I", 5)


@pytest.mark.parametrize("cut", [1, 7, 8, 12, 15])
def test_a_stream_that_is_cut_off_says_where(cut):
    data = written([b"first", b"second"])
    reader = recordio.read(io.BytesIO(data[: 16 + cut]))
    assert next(reader) == b"first"
    with pytest.raises(recordio.RecordError, match="byte 16: the stream ends within a record"):
        next(reader)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not recordio at all", "byte 0: expected RecordIO's magic number"),
        (MAGIC + struct.pack("<I", 2 << 29), "byte 0: a part of kind 2 is out of its order"),
        (MAGIC + struct.pack("<I", 5 << 29), "byte 0: a part of kind 5 is out of its order"),
        (
            MAGIC + struct.pack("<I", 1 << 29) + written([b"x"]),
            "byte 8: a part of kind 0 is out of its order",
        ),
        (MAGIC + struct.pack("<I", 1 << 29), "byte 8: the stream ends within a record"),
    ],
)
def test_what_is_no_recordio_says_where(data, message):
    with pytest.raises(recordio.RecordError, match=message):
        list(recordio.read(io.BytesIO(data)))
