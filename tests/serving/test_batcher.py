from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoc_serving.batcher import Admission, Batcher, FullError, isolate


def test_batch_is_what_arrived_during_the_last_one():
    sizes: list[int] = []
    first, go_on = threading.Event(), threading.Event()
    done = threading.Semaphore(0)

    def run(items: list[int]) -> list[int]:
        sizes.append(len(items))
        first.set()
        assert go_on.wait(10)
        return [item * 2 for item in items]

    delivered: list[tuple[int, int]] = []

    def deliver(pairs: list[tuple[int, int]]) -> None:
        delivered.extend(pairs)
        for _ in pairs:
            done.release()

    batcher: Batcher[int, int] = Batcher(run, deliver, lambda item, error: -1, 8)
    thread = threading.Thread(target=batcher.serve)
    thread.start()
    batcher.submit(0)
    assert first.wait(10)
    for item in range(1, 12):
        batcher.submit(item)
    go_on.set()
    for _ in range(12):
        assert done.acquire(timeout=10)
    batcher.close()
    thread.join(10)
    assert not thread.is_alive()
    assert sizes == [1, 8, 3]
    assert delivered == [(item, item * 2) for item in range(12)]


def test_items_queued_before_close_are_answered():
    delivered: list[tuple[int, int]] = []
    batcher: Batcher[int, int] = Batcher(list, delivered.extend, lambda i, e: -1, 2)
    for item in range(5):
        batcher.submit(item)
    batcher.close()
    batcher.serve()
    assert [item for item, _ in delivered] == list(range(5))


@pytest.mark.parametrize("wrong", [lambda items: 1 / 0, lambda items: [1]])
def test_every_item_is_answered_when_the_run_itself_breaks(wrong):
    delivered: list[tuple[int, int]] = []
    batcher: Batcher[int, int] = Batcher(wrong, delivered.extend, lambda item, error: -item, 9)
    batcher.submit(1)
    batcher.submit(2)
    batcher.close()
    batcher.serve()
    assert delivered == [(1, -1), (2, -2)]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_only_the_guilty_items_fail(guilty):
    def call(items: list[tuple[int, bool]]) -> list[int]:
        if any(bad for _, bad in items):
            raise ValueError("poisoned")
        return [number for number, _ in items]

    results = isolate(call, list(enumerate(guilty)))
    for number, (bad, result) in enumerate(zip(guilty, results, strict=True)):
        assert isinstance(result, ValueError) if bad else result == number


def test_admission_bounds_items_and_bytes_and_lets_one_large_item_in():
    admission = Admission(2, 100)
    admission.enter(1000)
    with pytest.raises(FullError, match="1000 bytes"):
        admission.enter(1)
    admission.leave(1000)
    admission.enter(60)
    admission.enter(40)
    with pytest.raises(FullError, match="2 requests"):
        admission.enter(0)
    with pytest.raises(FullError):
        admission.grow(1)
    admission.leave(60)
    admission.grow(500)
    admission.leave(540)
    assert (admission.items, admission.bytes) == (0, 0)
