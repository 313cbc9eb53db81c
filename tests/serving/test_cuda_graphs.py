"""Graphs of batch buckets: the logic, with a stand-in for CUDA that repeats on the same memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from byoc_serving import cuda_graphs
from byoc_serving.cuda_graphs import WARM, Graphs, bucket


class Repeating:
    """Repeats a pass over the memory that it was made with, into the same output."""

    def __init__(self, error: Exception | None = None) -> None:
        self.rows: list[int] = []
        self.replays = 0
        self._error = error

    def capture(self, forward: Any, data: Any) -> Any:
        self.rows.append(len(data))
        if self._error:
            raise self._error
        output = forward(data)

        def replay() -> Any:
            self.replays += 1
            fresh = forward(data)
            pairs = (
                [(output, fresh)]
                if isinstance(output, torch.Tensor)
                else [(output[name], fresh[name]) for name in output]
            )
            for old, new in pairs:
                old.copy_(new)
            return output

        return replay


def double(data: torch.Tensor) -> torch.Tensor:
    return data * 2


def graphs(capturing: Repeating, forward: Any = double, reference: Any = None) -> Graphs:
    return Graphs(forward, reference or forward, 1e-4, 8, capturing)


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 12), (12, 12)])
def test_bucket_is_a_power_of_two_within_the_limit(rows, expected):
    assert bucket(rows, 12) == expected


def test_one_graph_answers_all_batches_of_its_bucket():
    capturing = Repeating()
    model = graphs(capturing)
    for number in range(10):
        for rows in (3, 4):
            data = torch.randn(rows, 2) + number
            assert torch.equal(model(data), data * 2)
    assert capturing.rows == [4]
    assert capturing.replays >= 20 - WARM


def test_graph_is_made_only_for_a_bucket_that_comes_back():
    capturing = Repeating()
    model = graphs(capturing)
    for _ in range(WARM - 1):
        model(torch.ones(2, 2))
    assert [model.count] == [0]
    model(torch.ones(2, 2))
    assert [model.count] == [1]


def test_an_answer_outlives_the_next_pass():
    model = graphs(Repeating(), lambda data: {"scores": data + 1})
    for _ in range(WARM):
        model(torch.zeros(2, 2))
    first = model(torch.zeros(2, 2))["scores"]
    model(torch.ones(2, 2))
    assert first.tolist() == [[1.0, 1.0]] * 2


def test_padding_is_zeros_and_not_the_request_before():
    seen: list[torch.Tensor] = []

    def spying(data: torch.Tensor) -> torch.Tensor:
        seen.append(data.clone())
        return data * 2

    model = graphs(Repeating(), spying, double)
    for _ in range(WARM + 1):
        model(torch.ones(4, 2))
    model(torch.ones(3, 2))
    assert seen[-1].tolist() == [[1.0, 1.0]] * 3 + [[0.0, 0.0]]


@pytest.mark.parametrize("rows", [3, 4])
def test_model_that_mixes_rows_gets_no_graph(caplog, rows):
    capturing = Repeating()
    model = graphs(capturing, lambda data: data - data.mean(0))
    data = torch.arange(2.0 * rows).reshape(rows, 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2 * WARM):
            assert torch.equal(model(data), data - data.mean(0))
    assert model.count == 0
    assert caplog.text.count("without CUDA graphs") == 1


@pytest.mark.parametrize(
    ("capturing", "forward"),
    [
        (Repeating(RuntimeError("operation not permitted when stream is capturing")), double),
        (Repeating(), lambda data: data.sum(0)),
        (Repeating(), lambda data: data.tolist()),
    ],
    ids=["capture fails", "no row for each", "no tensors"],
)
def test_what_cannot_be_captured_is_answered_as_before(caplog, capturing, forward):
    model = graphs(capturing, forward)
    data = torch.ones(2, 2)
    expected = forward(data)
    with caplog.at_level(logging.WARNING):
        for rows in (2, 2, 2, 2, 1, 1, 1, 1):
            answer = model(torch.ones(rows, 2))
    assert str(model(data)) == str(expected)
    assert answer is not None
    assert model.count == 0
    assert caplog.text.count("without CUDA graphs") == 1


def test_number_of_graphs_is_bounded(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    model = graphs(Repeating())
    for width in (1, 2, 3, 4):
        for _ in range(WARM + 1):
            assert torch.equal(model(torch.ones(1, width)), torch.full((1, width), 2.0))
    assert model.count == 2


def test_batches_beyond_the_limit_and_empty_ones_are_answered_without_a_graph():
    capturing = Repeating()
    model = graphs(capturing)
    for _ in range(WARM + 1):
        assert len(model(torch.ones(9, 2))) == 9
        assert len(model(torch.ones(0, 2))) == 0
    assert capturing.rows == []
