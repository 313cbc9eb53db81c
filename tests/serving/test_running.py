from __future__ import annotations

import time

from byoc_serving.running import End, Left, Running


def test_what_a_process_was_running_is_known_after_its_end_and_while_the_next_works():
    running = Running(2)
    running.begin(1, 4, [(0, 7), (3, 7), (3, 1 << 40)])
    running.begin(1, 5, [(3, 9)])
    assert running.left(1, 4, 3) == Left(End.CRASHED, frozenset({7, 1 << 40}), 3)
    assert running.left(1, 4, 0) == Left(End.CRASHED, frozenset({7}), 3)
    assert running.left(1, 4, 1) == Left(End.CRASHED, frozenset(), 3)
    assert running.left(0, 4, 3) == Left()
    running.done(1, 5)
    assert running.left(1, 5, 3) == Left()
    running.done(1, 6)
    assert running.left(1, 4, 3) == Left()


def test_condemned_process_is_told_from_a_crashed_one():
    running = Running(1)
    running.begin(0, 0, [(0, 1)])
    running.condemn(0, 0)
    assert running.left(0, 0, 0) == Left(End.HUNG, frozenset({1}), 1)


def test_time_of_the_running_batch_is_measured():
    running = Running(1)
    assert running.busy_s(0, 0) == 0
    running.begin(0, 0, [(0, 1)])
    began = time.monotonic()
    while running.busy_s(0, 0) <= 0.01:
        assert time.monotonic() < began + 10
    assert running.busy_s(0, 1) == 0
    running.done(0, 0)
    assert running.busy_s(0, 0) == 0
