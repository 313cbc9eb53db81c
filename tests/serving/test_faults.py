"""Which status an error of the model gets: a scripted model's the same as a plain one's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from byoc_serving.errors import InternalError, RefusedByModelError, UnavailableError
from byoc_serving.exchange import Invocation
from byoc_serving.faults import classify
from byoc_serving.torch_errors import as_raised, is_out_of_memory

if TYPE_CHECKING:
    from pathlib import Path


class Refusing(torch.nn.Module):
    """Raises in as many ways as TorchScript can compile; ``size`` and ``shape`` are in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        way = int(x[0, 0])
        assert way != 1, "not the first"
        if way == 2:
            raise ValueError("two, not\nfor us")
        if way == 3:
            raise RuntimeError("three has no size")
        if way == 4:
            raise KeyError("four")
        if way == 5:
            raise NotImplementedError("five")
        if way == 6:
            return x * {"there": 1.0}["not"]
        answer: torch.Tensor = self.linear(x)
        return answer


def scripted(model: torch.nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model.eval())


def raised(model: Any, data: torch.Tensor) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        model(data)
    return caught.value


WAYS = [torch.tensor([[way, 0.0]]) for way in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)] + [torch.zeros(1, 3)]


@pytest.mark.parametrize("data", WAYS, ids=["1", "2", "3", "4", "5", "6", "shape"])
def test_scripted_model_raises_what_the_plain_one_does(data):
    plain = raised(Refusing(), data)
    for model in (scripted(Refusing()), torch.jit.freeze(scripted(Refusing()))):
        wrapped = raised(model, data)
        assert str(wrapped) != str(plain)
        assert type(as_raised(wrapped)) is type(plain)
        # pytest says more of an assertion that it finds in a test's own file.
        words = str(plain).removesuffix("\nassert 1 != 1")
        assert str(as_raised(wrapped)) == words


def test_what_is_no_error_of_a_script_stays_itself():
    error = RuntimeError("as it is")
    assert as_raised(error) is error
    cut_off = RuntimeError("The following operation failed in the TorchScript interpreter.")
    assert as_raised(cut_off) is cut_off


@pytest.mark.parametrize("default_predict", [True, False])
@pytest.mark.parametrize("data", WAYS, ids=["1", "2", "3", "4", "5", "6", "shape"])
def test_scripted_model_is_classified_as_the_plain_one(data, default_predict):
    seen = [
        classify("predict", raised(model, data), Invocation([]), default_predict=default_predict)
        for model in (Refusing(), scripted(Refusing()))
    ]
    assert (type(seen[0]), str(seen[0])) == (type(seen[1]), str(seen[1]))


class OwnError(Exception):
    """A model's own."""


class Own(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() >= 0):
            raise OwnError("of this size")
        return x


@pytest.mark.parametrize("default_predict", [True, False])
def test_class_of_the_models_own_is_lost_in_a_script(default_predict):
    error = raised(scripted(Own()), torch.zeros(1, 1))
    fault = classify("predict", error, Invocation([]), default_predict=default_predict)
    if default_predict:
        assert isinstance(fault, RefusedByModelError)
        assert "OwnError: of this size" in str(fault)
    else:
        assert isinstance(fault, InternalError)


def test_memory_that_ran_out_inside_a_script_is_told_as_such():
    # The interpreter makes a RuntimeError of torch.OutOfMemoryError.
    error = RuntimeError(
        "The following operation failed in the TorchScript interpreter.\n"
        "Traceback of TorchScript (most recent call last):\n"
        '  File "net.py", line 1, in forward\n    return x @ x\n           ~~~~~ <--- HERE\n'
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    )
    assert is_out_of_memory(error)
    fault = classify("predict", error, Invocation([]), default_predict=True)
    assert isinstance(fault, UnavailableError)


def test_archive_of_torchscript_that_refuses_an_input_is_422(start, model_root, tmp_path: Path):
    path = tmp_path / "model.pt"
    scripted(Refusing()).save(str(path))
    server = start(model_root(None, model__pt=path.read_bytes())).wait_ready()
    for _ in range(5):
        assert server.invoke("[[0, 0]]").status == 200
        for body, words in (
            ("[[1, 0]]", "AssertionError: not the first"),
            ("[[3, 0]]", "RuntimeError: three has no size"),
            ("[[0, 0, 0]]", "mat1 and mat2 shapes cannot be multiplied"),
        ):
            answer = server.invoke(body)
            assert answer.status == RefusedByModelError.status
            assert words in answer.json["error"]["message"]
            assert "TorchScript" not in answer.json["error"]["message"]
