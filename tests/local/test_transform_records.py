"""Objects cut into requests, and put together again."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoc.local.transform import records

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES = st.lists(st.sampled_from([b"a", b"bb", b"", b"\r", b"ccccccc"]))
TEXTS = LINES.map(b"\n".join)


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


@given(TEXTS, st.integers(1, 5), st.booleans())
def test_lines_are_never_lost_or_split_whatever_the_chunks(content, size, several):
    bodies = [*records.payloads(cut(content, size), split="Line", several=several, most=8)]
    assert b"".join(bodies) == content
    assert all(len(body) <= 8 for body in bodies)
    assert all(body.endswith(b"\n") for body in bodies[:-1])
    if not several:
        assert all(body.count(b"\n") <= 1 for body in bodies)


def test_as_many_whole_records_as_fit_are_in_one_body():
    bodies = records.payloads([b"aa\nbb\ncc\n"], split="Line", several=True, most=7)
    assert [*bodies] == [b"aa\nbb\n", b"cc\n"]


def test_an_object_that_is_not_split_is_one_body_even_when_empty():
    assert [*records.payloads([], split="None", several=True, most=8)] == [b""]
    assert [*records.payloads([b"a\n", b"b"], split="None", several=False, most=8)] == [b"a\nb"]


@pytest.mark.parametrize("split", ["None", "Line"])
def test_what_is_too_long_is_refused_before_all_of_it_is_read(split):
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 2**20

    with pytest.raises(records.RecordError, match="MaxPayloadInMB, 3"):
        [*records.payloads(endless(), split=split, several=True, most=3 * 2**20)]


@given(TEXTS, TEXTS, st.integers(1, 7))
def test_gzip_members_are_read_one_after_the_other(one, two, size):
    packed = gzip.compress(one) + gzip.compress(two)
    assert b"".join(records.unzipped(cut(packed, size))) == one + two


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(b"x" * 100)[:-4]])
def test_what_is_no_whole_gzip_object_is_refused(content):
    with pytest.raises(records.RecordError, match="gzip"):
        [*records.unzipped([content])]


def test_answers_are_put_together_as_they_are_or_as_lines():
    answers = [b"a", b"b\n", b""]
    assert b"".join(records.assembled(answers, lines=False)) == b"ab\n"
    assert b"".join(records.assembled(answers, lines=True)) == b"a\nb\n\n"
