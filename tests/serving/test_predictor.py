from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from byoc_serving.predictor import CHECKS, SMALLER_S, Predictor


def counting(forward):
    rows: list[int] = []

    def call(data: Any) -> Any:
        rows.append(len(data))
        return forward(data)

    return call, rows


def test_requests_are_joined_once_the_answers_have_been_compared():
    call, rows = counting(lambda x: x * 2)
    predictor = Predictor(call, 64)
    for _ in range(CHECKS):
        predictor.predict([torch.ones(1, 3), torch.ones(2, 3)])
    rows.clear()
    outputs = predictor.predict([torch.ones(1, 3), torch.full((2, 3), 4.0), torch.zeros(1, 3)])
    assert rows == [4]
    assert [tuple(o.shape) for o in outputs] == [(1, 3), (2, 3), (1, 3)]
    assert outputs[1].tolist() == [[8.0] * 3] * 2


def test_model_that_mixes_rows_is_asked_one_by_one():
    call, rows = counting(lambda x: x - x.mean(0))
    predictor = Predictor(call, 64)
    inputs = [torch.tensor([[1.0]]), torch.tensor([[5.0]])]
    for _ in range(4):
        rows.clear()
        assert [o.tolist() for o in predictor.predict(inputs)] == [[[0.0]], [[0.0]]]
    assert rows == [1, 1]


def test_different_shapes_and_dtypes_are_never_joined():
    call, rows = counting(lambda x: x.float() + 1)
    predictor = Predictor(call, 64)
    inputs = [torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 2, dtype=torch.int64)]
    outputs = predictor.predict(inputs)
    assert rows == [1, 1, 1]
    assert [tuple(o.shape) for o in outputs] == [(1, 2), (1, 3), (1, 2)]


def test_rows_of_one_pass_are_bounded():
    call, rows = counting(lambda x: x)
    predictor = Predictor(call, 4)
    inputs = [torch.ones(2, 1) for _ in range(5)]
    for _ in range(3 * CHECKS):
        rows.clear()
        predictor.predict(inputs)
    assert rows == [4, 4, 2]


def test_guilty_request_fails_alone_after_joining_has_begun():
    def forward(x: Any) -> Any:
        if (x == 7).any():
            raise RuntimeError("poison")
        return {"twice": x * 2, "pair": (x, x.sum(1))}

    predictor = Predictor(forward, 64)
    for _ in range(CHECKS):
        predictor.predict([torch.ones(1, 1), torch.ones(1, 1)])
    inputs = [torch.full((1, 1), float(i)) for i in range(10)]
    outputs = predictor.predict(inputs)
    assert isinstance(outputs[7], RuntimeError)
    for number, output in enumerate(outputs):
        if number != 7:
            assert output["twice"].item() == 2 * number
            assert output["pair"][1].item() == number


def test_what_is_no_batch_is_asked_alone():
    predictor = Predictor(lambda x: x, 64)
    inputs = [{"text": "a"}, "b", torch.tensor(3.0), torch.ones(2)]
    outputs = predictor.predict(inputs)
    assert outputs[:2] == inputs[:2]
    assert outputs[2].item() == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_batch_that_does_not_fit_is_halved_and_the_limit_is_remembered_for_a_while(
    error, monkeypatch
):
    fitting = 64

    def forward(x: Any) -> Any:
        rows.append(len(x))
        if len(x) > fitting:
            raise error
        return x * 2

    rows: list[int] = []
    predictor = Predictor(forward, 64)
    inputs = [torch.full((1, 1), float(i)) for i in range(16)]
    for _ in range(CHECKS):
        predictor.predict(inputs)
    fitting = 4
    rows.clear()
    assert [o.item() for o in predictor.predict(inputs)] == [2.0 * i for i in range(16)]
    assert rows == [16, 8, 4, 4, 8, 4, 4]
    rows.clear()
    predictor.predict(inputs)
    assert rows == [4, 4, 4, 4]
    later = time.monotonic() + SMALLER_S + 1
    monkeypatch.setattr("byoc_serving.predictor.time.monotonic", lambda: later)
    fitting = 64
    rows.clear()
    predictor.predict(inputs)
    assert rows == [16]


def test_single_input_that_does_not_fit_fails_alone_and_joining_stays_on():
    def forward(x: Any) -> Any:
        rows.append(len(x))
        if (x == 7).any():
            raise MemoryError
        return x

    rows: list[int] = []
    predictor = Predictor(forward, 64)
    inputs = [torch.full((1, 1), float(i)) for i in range(6, 9)]
    for _ in range(CHECKS + 1):
        outputs = predictor.predict(inputs)
        assert isinstance(outputs[1], MemoryError)
        assert [outputs[0].item(), outputs[2].item()] == [6.0, 8.0]
    assert predictor.rows_limit < 64
