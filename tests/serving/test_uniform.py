from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from byoc_serving.errors import InternalError
from byoc_serving.exchange import Invocation, Response, error_response
from byoc_serving.uniform import Uniform


class Model:
    """A forward that remembers how many rows each pass had."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward
        self.passes: list[int] = []

    def __call__(self, data: Any) -> Any:
        self.passes.append(len(data))
        return self._forward(data)


def request(*rows: float, accept: str = "application/json", **fields: Any) -> Invocation:
    invocation = Invocation([])
    invocation.data = np.array([[row] for row in rows], np.float32)
    invocation.answer_type = accept
    for name, value in fields.items():
        setattr(invocation, name, value)
    return invocation


def failed(stage: str, invocation: Invocation, error: Exception) -> Response:
    return error_response(InternalError(f"{stage}: {error}"), invocation.request_id)


def written(_: Invocation, output: Any) -> Response:
    return Response(200, b"general: " + json.dumps(sorted(output)).encode())


def uniform(forward: Any, *, joins: bool = True) -> tuple[Uniform, Model]:
    model = Model(forward)
    return Uniform(model, lambda *_: joins, written, failed), model


def bodies(answered: Any) -> list[Any]:
    return [json.loads(response.body) for response in answered[0]]


def test_requests_share_a_pass_and_get_their_own_rows():
    answers, model = uniform(lambda x: x * 2)
    assert bodies(answers.answer([request(1), request(2, 3), request(4)])) == [
        [[2.0]],
        [[4.0], [6.0]],
        [[8.0]],
    ]
    assert model.passes == [4]


def test_each_answer_has_the_type_asked_for():
    answers, _ = uniform(lambda x: x * 2)
    answered = answers.answer(
        [request(1), request(2, accept="text/csv"), request(3, accept="application/x-npy")]
    )
    assert answered is not None
    kinds = [response.content_type for response in answered[0]]
    assert kinds == ["application/json", "text/csv", "application/x-npy"]
    assert answered[0][1].body.strip() == b"4.0"
    assert answered[0][2].body.endswith(np.float32(6).tobytes())


@pytest.mark.parametrize(
    "odd",
    [
        {"data": None},
        {"data": np.ones((1, 2), np.float32)},
        {"data": np.ones((1, 1), np.int64)},
        {"answer_type": ""},
        {"deadline": 0.0},
        {"session": SimpleNamespace()},
        {"future": SimpleNamespace(cancelled=lambda: True)},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_one_that_is_not_alike_sends_all_the_general_way(odd: dict[str, Any]):
    answers, model = uniform(lambda x: x)
    batch = [request(1), request(2, **odd)]
    before = batch[0].data
    assert answers.answer(batch) is None
    assert model.passes == []
    assert batch[0].data is before


def test_forms_that_may_not_be_joined_go_the_general_way_unless_alone():
    answers, model = uniform(lambda x: x, joins=False)
    assert answers.answer([request(1), request(2)]) is None
    assert bodies(answers.answer([request(1)])) == [[[1.0]]]
    assert model.passes == [1]


def test_a_joined_pass_that_fails_leaves_the_inputs_as_they_were():
    def spoil(data: Any) -> Any:
        data.zero_()
        raise RuntimeError("no")

    answers, _ = uniform(spoil)
    batch = [request(1), request(2)]
    assert answers.answer(batch) is None
    assert [float(invocation.data[0, 0]) for invocation in batch] == [1.0, 2.0]


def test_a_single_request_is_never_run_twice():
    def spoil(data: Any) -> Any:
        data.zero_()
        raise RuntimeError("no")

    answers, model = uniform(spoil)
    answered = answers.answer([request(1)])
    assert answered is not None
    assert answered[0][0].status == 500
    assert b"predict: no" in answered[0][0].body
    assert model.passes == [1]


def test_outputs_that_are_no_tensor_are_written_the_general_way():
    answers, model = uniform(lambda x: {"b": x, "a": x})
    answered = answers.answer([request(1)])
    assert answered is not None
    assert answered[0][0].body == b'general: ["a", "b"]'
    assert model.passes == [1]
    assert answers.answer([request(1), request(2)]) is None
    assert answers.answer([request(1), request(2)]) is None
    # Found out once; after that no pass is run for nothing.
    assert model.passes == [1, 2]


def test_an_output_with_other_rows_than_the_input_is_not_cut_up():
    answers, _ = uniform(lambda x: x.sum(0, keepdim=True))
    assert answers.answer([request(1), request(2)]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_in_one_answer_is_that_requests_alone(bad: float):
    answers, _ = uniform(lambda x: torch.where(x > 1, torch.full_like(x, bad), x))
    answered = answers.answer([request(1), request(2)])
    assert answered is not None
    good, other = answered[0]
    assert (good.status, json.loads(good.body)) == (200, [[1.0]])
    assert other.status == 500
    assert b"NaN or infinity" in other.body


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64],
)
def test_every_type_of_number_is_written_as_the_codecs_write_it(dtype: Any):
    from byoc_serving import codecs

    answers, _ = uniform(lambda x: x.to(dtype))
    answered = answers.answer([request(1), request(0, 1)])
    assert answered is not None
    if dtype.is_complex:
        assert [r.status for r in answered[0]] == [500, 500]
        return
    for response, rows in zip(answered[0], ([[1.0]], [[0.0], [1.0]]), strict=True):
        assert response.body == codecs.encode(torch.tensor(rows).to(dtype), "application/json")


def test_outputs_that_do_not_lie_in_order_are_written_in_order():
    answers, _ = uniform(lambda x: torch.cat([x, x + 10]).reshape(2, -1).t())
    assert bodies(answers.answer([request(1), request(2, 3)])) == [
        [[1.0, 11.0]],
        [[2.0, 12.0], [3.0, 13.0]],
    ]
