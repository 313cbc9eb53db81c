"""CSV is read in slices: nobody can tell where one ends, and the memory is bounded."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoc_serving.codecs import csv_text
from byoc_serving.errors import BadBodyError

#: Memory while a body is read, as a multiple of it: float32 for ``1,``, and what a slice takes.
FACTOR = 2.1
SLICE_MEMORY = 4_000_000


def peak_of(body: bytes) -> int:
    tracemalloc.start()
    try:
        csv_text.decode(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"1\n" * 2_000_000,
        b"\n".join([b",".join([b"1"] * 784)] * 2000),
        b",".join([b"1"] * 2_000_000),
        b"0.123456,-7.5e-3\r\n" * 200_000,
        b'"1","2"\n' * 400_000,
    ],
    ids=["one column", "rows of pixels", "one row", "fractions", "quoted"],
)
def test_csv_takes_little_more_memory_than_its_numbers(body: bytes):
    assert peak_of(body) < FACTOR * len(body) + SLICE_MEMORY


@given(
    st.integers(1, 9),
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\n\n"]), min_size=1, max_size=12),
    st.integers(8, 40),
    st.booleans(),
)
def test_slices_of_any_length_give_numpys_rows(columns, ends, length, bom):
    row = iter(range(1000))
    lines = [b",".join(b"%d.5" % next(row) for _ in range(columns)) + end for end in ends]
    body = b"".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "_SLICE_BYTES", length)
        array = csv_text.decode((b"\xef\xbb\xbf" if bom else b"") + body)
    expected = np.loadtxt(io.BytesIO(body), np.float32, delimiter=",", ndmin=2)
    assert array.dtype == np.float32
    assert array.tolist() == expected.tolist()
    assert array.flags.writeable


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"1,2\n" * 50_000 + b"1,x\n", "row 50001, column 2: expected a number, got 'x'"),
        (b"1,2\n" * 50_000 + b"1\n", "changed from 2 to 1 at row 50001"),
        (b"1,2\n" * 50_000 + b"\xff\n", "byte 200000 is 0xff"),
        (b"1,2\n" * 50_000 + b'"1\n",2\n', "after row 49152: a quotation mark"),
        (b"1," * 50_000 + b"x", "row 1, column 50001: expected a number, got 'x'"),
        (b"1," * 50_000, "row 1, column 50001: expected a number, got an empty field"),
        (b"1," * 50_000 + b"1\n2\n", "changed from 50001 to 1 at row 2"),
        (b"1," * 32_768, "row 1, column 32769: expected a number, got an empty field"),
        (b"1" * 100_000, "have neither a comma nor a line end"),
        (b"\xef\xbb\xbf", "only blank lines"),
        (b"\r\n" * 100_000, "only blank lines"),
    ],
)
def test_errors_beyond_the_first_slice_name_their_place(body: bytes, words: str):
    with pytest.raises(BadBodyError) as caught:
        csv_text.decode(body)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200
