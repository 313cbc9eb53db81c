"""Convolutions and linear layers packed for oneDNN: the same answers, the model left as it was."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from byoc_serving import fused
from byoc_serving.deviation import deviation
from byoc_serving.optimize import Optimizer

TOLERANCE = 1e-5
# torch.jit warns that it is old, and of the annotations of this module; see optimize.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning"),
]


class Residual(nn.Module):
    """Batch normalisation, a shared layer, a sum, functional and method ReLU, a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2, stride=1)
        self.flat = nn.Linear(8 * 4 * 4, 6)
        self.shared = nn.Linear(6, 6)

    def forward(self, images: torch.Tensor) -> Any:
        x = functional.relu(self.norm(self.first(images)))
        x = functional.max_pool2d(x + self.second(x).relu(), 2)
        x = self.flat(x.view(x.size(0), -1))
        return self.shared(functional.relu(self.shared(x)) - x)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x) if x.sum() > 0 else x


class Twice(nn.Module):
    """The output of the convolution is wanted before the ReLU as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.layer(x)
        return torch.cat([x, torch.relu(x)], 1)


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "residual": (Residual, (3, 8, 8)),
    "twice": (Twice, (3,)),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5),
            nn.ReLU(inplace=True), nn.Linear(5, 2, bias=False), nn.LogSoftmax(1),
        ),
        (1, 8, 8),
    ),
    "reflecting": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
                              nn.Conv2d(4, 4, 3, padding="same")),
        (1, 8, 8),
    ),
}  # fmt: skip


def made(make: Any) -> Any:
    torch.manual_seed(3)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.load_state_dict(
                {
                    **module.state_dict(),
                    "running_mean": torch.randn(8),
                    "running_var": torch.rand(8),
                }
            )
    return model.eval()


def packed(model: Any) -> Any:
    return fused.fuse(fused.trace(model))


@pytest.mark.parametrize("name", ["residual", "twice", "sequential"])
def test_the_answers_are_the_models_own_at_every_batch_size(name: str):
    make, shape = MODELS[name]
    model = made(make)
    form = packed(model)
    with torch.inference_mode():
        for rows in (1, 2, 8, 33):
            data = torch.randn(rows, *shape)
            for _ in range(3):
                assert deviation(model(data), form(data)) < TOLERANCE


def test_the_model_stays_as_it_was():
    model = made(Residual)
    before = copy.deepcopy(model.state_dict())
    modules = list(model.modules())
    packed(model)
    assert list(model.modules()) == modules
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_normalisation_relu_and_dropout_become_part_of_the_layer_before_them():
    code = str(packed(made(Residual)).graph)
    # Neither the normalisation nor a ReLU of its own is left of the first convolution.
    assert "batch_norm" not in code
    assert code.count("mkldnn::_convolution_pointwise") == 2
    assert code.count("aten::relu") == 1, "the ReLU of the shared layer stays"
    sequential = str(packed(made(MODELS["sequential"][0])).graph)
    assert "aten::relu" not in sequential
    assert "dropout" not in sequential


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Branches(), "control flow"),
        (made(MODELS["reflecting"][0]), "no convolution or linear layer"),
        (nn.Sequential(nn.Linear(2, 2).double()), "no convolution or linear layer"),
        (nn.Sequential(nn.ReLU()), "no convolution or linear layer"),
    ],
)
def test_what_cannot_be_packed_is_refused(model: Any, cause: str):
    with pytest.raises(Exception, match=cause):
        packed(model.eval())


def test_a_scripted_model_is_refused():
    script: Any = torch.jit.script
    with pytest.raises(TypeError, match="scripted"):
        packed(script(nn.Linear(2, 2)))


def test_a_model_with_hooks_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="hooks"):
        packed(model.eval())


def test_large_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused, "MOST_BYTES", 15)
    with pytest.raises(ValueError, match="second copy"):
        packed(nn.Sequential(nn.Linear(2, 2)).eval())


class Caching(nn.Module):
    """Keeps what its first forward has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        if self.scale is None:
            self.scale = x.abs().amax() * 0 + 1
        return self.layer(x) * self.scale


def test_what_a_forward_keeps_in_its_module_is_not_what_was_traced():
    model = made(Caching)
    fused.trace(model)
    assert model.scale is None
    assert model(torch.ones(2, 3)).shape == (2, 3)


def test_the_graph_is_taken_when_the_optimizer_is_made_and_no_later(
    monkeypatch: pytest.MonkeyPatch,
):
    """While it is taken, a forward in any other thread would become a part of it."""
    seen = []
    trace = torch.fx.symbolic_trace

    def watched(model: Any) -> Any:
        seen.append(threading.current_thread())
        return trace(model)

    monkeypatch.setattr(torch.fx, "symbolic_trace", watched)
    optimizer = Optimizer(made(Residual), "freeze")
    assert seen == [threading.current_thread()]
    with torch.inference_mode():
        optimizer(torch.randn(1, 3, 8, 8))
    assert optimizer.wait(60)
    assert len(seen) == 1
