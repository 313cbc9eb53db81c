from __future__ import annotations

import pytest

from byoc_training.tail import KEPT_BYTES, LONGEST_LINE_BYTES, Tail


@pytest.mark.parametrize("step", [7, 4096, 100_000])
def test_last_lines_are_kept_whatever_the_pieces(step):
    data = b"".join(b"line %d\n" % number for number in range(30_000))
    tail = Tail()
    for start in range(0, len(data), step):
        tail.add(data[start : start + step])
    assert tail.content() == data[-KEPT_BYTES:]


@pytest.mark.parametrize("step", [1000, 64 * 1024])
def test_of_a_long_line_the_beginning_is_kept(step):
    data = b"first\nValueError: " + b"x" * 1_000_000 + b"\nlast\n"
    tail = Tail()
    for start in range(0, len(data), step):
        tail.add(data[start : start + step])
    first, error, last, _ = tail.content().split(b"\n")
    assert (first, last) == (b"first", b"last")
    assert error == b"ValueError: " + b"x" * (LONGEST_LINE_BYTES - 12)


def test_of_a_progress_bar_the_last_state_is_kept():
    tail = Tail()
    for number in range(50_000):
        tail.add(b"\r%d%%" % number)
    assert tail.content().endswith(b"\r49999%")
