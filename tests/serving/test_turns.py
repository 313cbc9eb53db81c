"""Short batches on the loop: what goes into a turn, and what waits."""

from __future__ import annotations

from typing import Any

import numpy as np

from byoc_serving.exchange import Invocation
from byoc_serving.turns import TRUSTED, TURN_S, Costs, Turns


class Loop:
    """A loop whose calls run when asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def call_soon(self, call):
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def turns_of(free):
    loop, answered = Loop(), []

    def answer(batch: Any) -> bool:
        if not free[0]:
            return False
        answered.append([invocation.content_type for invocation in batch])
        return True

    return loop, answered, Turns(answer, loop.call_soon)


def put(turns, names, share):
    for name in names:
        turns.submit(Invocation((), name), share)


def test_everything_that_arrived_is_one_batch():
    loop, answered, turns = turns_of([True])
    put(turns, "abc", 0.1)
    assert answered == []
    loop.turn()
    assert answered == [["a", "b", "c"]]
    loop.turn()
    assert answered == [["a", "b", "c"]]


def test_loop_gets_its_breath_between_two_turns():
    loop, answered, turns = turns_of([True])
    put(turns, "abcde", 0.4)
    loop.turn()
    assert answered == [["a", "b"]]
    put(turns, "f", 0.4)
    loop.turn()
    loop.turn()
    assert answered == [["a", "b"], ["c", "d"], ["e", "f"]]


def test_requests_wait_in_order_while_the_model_thread_works():
    free = [False]
    loop, answered, turns = turns_of(free)
    put(turns, "ab", 0.1)
    loop.turn()
    loop.turn()
    assert answered == []
    assert loop.calls == []
    free[0] = True
    put(turns, "c", 0.1)
    turns.resume()
    loop.turn()
    assert answered == [["a", "b", "c"]]


def test_input_is_trusted_only_after_measurements():
    costs = Costs()
    image = np.zeros((2, 3), np.float32)
    for _ in range(TRUSTED):
        assert costs.share(image) == float("inf")
        costs.observe(image, 2, TURN_S / 2)
    assert costs.share(image) == 0.5
    assert costs.share(np.zeros((1, 3), np.float32)) == 0.25
    assert costs.share(np.zeros((1, 4), np.float32)) == float("inf")
    assert costs.share(np.zeros((1, 3), np.float64)) == float("inf")


def test_one_slow_start_of_large_batches_does_not_make_batches_small_for_ever():
    costs = Costs()
    image = np.zeros((1, 3), np.float32)
    for _ in range(TRUSTED):
        costs.observe(image, 16, 16 * TURN_S)
    assert costs.share(image) == 1
    for _ in range(TRUSTED):
        costs.observe(image, 1, TURN_S / 10)
    assert costs.share(image) == 0.1


def test_model_that_became_slow_leaves_the_loop():
    costs = Costs()
    image = np.zeros((1, 3), np.float32)
    for _ in range(TRUSTED):
        costs.observe(image, 1, TURN_S / 10)
    for _ in range(60):
        costs.observe(image, 1, 3 * TURN_S)
    assert costs.share(image) > 1


def test_shapes_that_are_remembered_are_bounded():
    costs = Costs()
    for width in range(1000):
        for _ in range(TRUSTED):
            costs.observe(np.zeros((1, width)), 1, 1e-6)
    known = sum(costs.share(np.zeros((1, width))) < 1 for width in range(1000))
    assert known == 256
