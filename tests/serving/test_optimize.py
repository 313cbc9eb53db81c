"""Faster forms of a model: never other answers, whatever the model is."""

from __future__ import annotations

import logging
import weakref
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

from byoc_serving import forms, optimize
from byoc_serving.deviation import deviation
from byoc_serving.forms import MAKERS, Form
from byoc_serving.optimize import Optimizer


class Digits(nn.Module):
    """Convolutions and a classifier, as in the example."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4)
        )
        self.classifier = nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.classifier(self.features(images).flatten(1))
        return answer


class Branching(nn.Module):
    """Goes another way for dark images, which tracing would not see."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if bool(images.mean() > 0):
            return images * 2
        return images - 1


class Noisy(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.rand_like(images)


class Unscriptable(nn.Module):
    def forward(self, images: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return {"scores": images.sum(tuple(range(1, images.ndim)))}


def optimized(model: nn.Module, sample: torch.Tensor, mode: str = "freeze") -> Optimizer:
    optimizer = Optimizer(model.eval(), mode)
    with torch.inference_mode():
        assert deviation(model(sample), optimizer(sample)) == 0
        assert optimizer.wait(120)
    return optimizer


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize(("mode", "tolerance"), [("freeze", 1e-4), ("bf16", 5e-2)])
def test_answers_stay_the_models_own(mode, tolerance, scripted):
    torch.manual_seed(0)
    model = Digits().eval()
    known = torch.jit.script(model) if scripted else model
    optimizer = optimized(known, torch.randn(2, 1, 28, 28), mode)
    with torch.inference_mode():
        for rows in (1, 2, 3, 8, 33):
            images = torch.randn(rows, 1, 28, 28)
            answer = optimizer(images)
            assert answer.dtype == torch.float32
            assert deviation(model(images), answer) <= tolerance


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_model_gets_a_copy_of_another_layout_and_stays_as_it_is():
    model = torch.jit.script(Digits().eval())
    images = torch.randn(2, 1, 28, 28)
    with torch.inference_mode():
        expected = model(images)
        form = forms._frozen_channels_last(model)
        assert deviation(expected, form.forward(images)) <= 1e-4
        assert torch.equal(model(images), expected)
    convolution = model.features[0].weight
    assert convolution.is_contiguous()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_large_scripted_model_is_not_copied(monkeypatch):
    monkeypatch.setattr(forms, "RELOAD_BYTES", 100)
    with pytest.raises(ValueError, match="second copy"):
        forms._frozen_channels_last(torch.jit.script(Digits().eval()))


def test_way_through_the_model_still_depends_on_the_data():
    optimizer = optimized(Branching(), torch.ones(1, 1, 4, 4))
    with torch.inference_mode():
        for sign in (1.0, -1.0):
            images = torch.full((2, 1, 4, 4), sign)
            assert torch.equal(optimizer(images), Branching()(images))


def test_model_that_draws_random_numbers_is_asked_as_loaded(caplog):
    with caplog.at_level(logging.WARNING):
        optimizer = optimized_noisy()
    assert optimizer.chosen == ("eager", "eager")
    assert "differ" in caplog.text


def optimized_noisy() -> Optimizer:
    optimizer = Optimizer(Noisy().eval(), "freeze")
    with torch.inference_mode():
        optimizer(torch.zeros(1, 1, 4, 4))
    assert optimizer.wait(120)
    return optimizer


def test_model_that_cannot_be_scripted_answers_as_before():
    optimizer = optimized(Unscriptable(), torch.ones(2, 3))
    with torch.inference_mode():
        assert optimizer(torch.ones(4, 3))["scores"].tolist() == [3.0] * 4


def liar(wrong):
    """A form that is faster and wrong where ``wrong`` says so."""

    def make(_: Any) -> Form:
        def forward(data: Any) -> Any:
            return torch.full((len(data), 1), -1.0) if wrong(data) else torch.zeros(len(data), 1)

        return Form("liar", forward)

    return make


class Zero(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            images = images * 1.5
        return images.flatten(1)[:, :1] * 0


@pytest.mark.parametrize("rows", optimize.SIZES)
def test_form_that_differs_at_one_batch_size_is_not_used(monkeypatch, caplog, rows):
    monkeypatch.setitem(MAKERS, "freeze", (liar(lambda data: len(data) == rows),))
    with caplog.at_level(logging.WARNING):
        optimizer = optimized(Zero(), torch.ones(1, 4096))
    assert optimizer.chosen == ("eager", "eager")
    assert "liar is not used" in caplog.text


def test_form_that_differs_for_another_shape_never_answers_it(monkeypatch, caplog):
    monkeypatch.setitem(MAKERS, "freeze", (liar(lambda data: data.shape[1] == 5000),))
    optimizer = optimized(Zero(), torch.ones(1, 4096))
    assert optimizer.chosen == ("liar", "liar")
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert optimizer(torch.ones(2, 5000)).tolist() == [[0.0], [0.0]]
        assert optimizer(torch.ones(2, 6000)).tolist() == [[0.0], [0.0]]
    assert caplog.text.count("[N, 5000] are answered by the model as loaded") == 1


def test_form_that_fails_is_not_used(monkeypatch):
    def fails(_: Any) -> NoReturn:
        raise RuntimeError("no kernel")

    monkeypatch.setitem(MAKERS, "freeze", (lambda _: Form("fails", fails),))
    assert optimized(Zero(), torch.ones(1, 8)).chosen == ("eager", "eager")


class Refusing(nn.Module):
    """Refuses dark images in Python, which TorchScript raises as a class of its own."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if bool((images < 0).any()):
            raise RuntimeError("negative size")
        for _ in range(50):
            images = images * 1.5
        return images


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_a_scripted_form_refuses_is_refused_by_the_model_itself(monkeypatch, caplog):
    monkeypatch.setattr(optimize, "WORTH", 1000)
    optimizer = optimized(Refusing(), torch.ones(1, 8))
    assert "eager" not in optimizer.chosen
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        for rows in (1, 2):
            with pytest.raises(RuntimeError, match=r"^negative size$"):
                optimizer(-torch.ones(rows, 8))
            assert optimizer._shapes == {(torch.float32, 8): True}
    assert not caplog.text


def test_form_that_fails_later_where_the_model_does_not_is_given_up(monkeypatch, caplog):
    asked = []

    def make(_: Any) -> Form:
        def forward(data: Any) -> Any:
            asked.append(len(data))
            if data[0, 0] == 13:
                raise RuntimeError("no kernel for 13")
            return torch.zeros(len(data), 1)

        return Form("partial", forward)

    monkeypatch.setitem(MAKERS, "freeze", (make,))
    optimizer = optimized(Zero(), torch.ones(1, 4096))
    assert optimizer.chosen == ("partial", "partial")
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        del asked[:]
        for _ in range(3):
            assert optimizer(torch.full((2, 4096), 13.0)).tolist() == [[0.0], [0.0]]
    assert asked == [2]
    assert caplog.text.count("[N, 4096] are answered by the model as loaded: partial failed") == 1
    assert "RuntimeError: no kernel for 13" in caplog.text


def test_memory_that_a_form_runs_out_of_is_left_to_the_predictor(monkeypatch):
    def make(_: Any) -> Form:
        def forward(data: Any) -> Any:
            if data[0, 0] == 13:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.zeros(len(data), 1)

        return Form("large", forward)

    monkeypatch.setitem(MAKERS, "freeze", (make,))
    optimizer = optimized(Zero(), torch.ones(1, 4096))
    assert optimizer.chosen == ("large", "large")
    with torch.inference_mode():
        with pytest.raises(torch.OutOfMemoryError):
            optimizer(torch.full((2, 4096), 13.0))
        assert optimizer._shapes == {(torch.float32, 4096): True}


def test_what_a_failed_pass_has_computed_is_gone_when_the_model_is_asked(monkeypatch):
    computed: list[Any] = []

    class Watching(Zero):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert all(one() is None for one in computed)
            return super().forward(images)

    def make(_: Any) -> Form:
        def forward(data: Any) -> Any:
            if data[0, 0] == 13:
                activations = torch.zeros(1000)
                computed.append(weakref.ref(activations))
                raise RuntimeError("no kernel for 13")
            return torch.zeros(len(data), 1)

        return Form("partial", forward)

    monkeypatch.setitem(MAKERS, "freeze", (make,))
    optimizer = optimized(Watching(), torch.ones(1, 4096))
    with torch.inference_mode():
        optimizer(torch.full((2, 4096), 13.0))
    assert len(computed) == 1


def test_numbers_of_tokens_are_left_alone():
    optimizer = optimized(nn.Embedding(9, 4), torch.tensor([[1, 2, 3]]))
    assert optimizer.chosen == ("eager", "eager")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (torch.tensor([2.0, 4.0]), torch.tensor([2.0, 3.0]), 0.25),
        ([torch.ones(2)], [torch.ones(2)], 0.0),
        ({"a": torch.ones(1)}, {"a": torch.zeros(1)}, 1.0),
        (torch.tensor([float("nan")]), torch.tensor([1.0]), float("inf")),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), 0.0),
        ("yes", "yes", 0.0),
    ],
)
def test_deviation_is_a_share_of_the_largest_value(one, other, expected):
    assert deviation(one, other) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        (1, "1"),
    ],
)
def test_answers_of_another_form_are_no_answers(one, other):
    with pytest.raises(ValueError, match="for"):
        deviation(one, other)


@pytest.mark.parametrize("mode", ["freeze", "bf16"])
def test_form_for_a_gpu_is_put_behind_graphs_and_answers_as_the_model(mode):
    """The order of things for a GPU, with a stand-in for the graphs, on the CPU."""
    asked: list[int] = []
    made: list[float] = []

    def graphed(form: Form, tolerance: float) -> Form:
        made.append(tolerance)

        def forward(data: torch.Tensor) -> Any:
            asked.append(len(data))
            return form.forward(data)

        return Form(f"{form.name} in graphs", forward)

    model = Digits().eval()
    optimizer = Optimizer(model, mode, graphed)
    images = torch.randn(3, 1, 28, 28)
    with torch.inference_mode():
        optimizer(images)
        assert optimizer.wait(120)
        assert deviation(model(images), optimizer(images)) <= optimize.CUDA_TOLERANCE[mode]
    assert asked == [3]
    assert set(made) == {optimize.CUDA_TOLERANCE[mode]}
    assert all(name.endswith("in graphs") for name in optimizer.chosen)
