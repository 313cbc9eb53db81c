"""Faster forms of the model, taken into use only once they have given the model's own answers.

A form is built in a thread of its own from the first real input that is seen, compared with the
model as loaded on that input at several batch sizes, timed, and used from then on where it is
faster. An input of another shape is compared once before its form answers alone.
"""

from __future__ import annotations

import copy
import logging
import shutil
import threading
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Rows of the passes that are compared and timed.
SIZES = (1, 2, 8)
#: Largest difference to the model as loaded, as a share of the largest value of its answer.
TOLERANCE = {"freeze": 1e-4, "compile": 1e-4, "bf16": 5e-2}
#: A form must be this much faster to be worth its memory.
WORTH = 0.97
#: Input shapes that are remembered; a model that sees more is asked as loaded.
_MAX_SHAPES = 256
_ROUNDS = 8


@dataclass(frozen=True)
class Form:
    """One way to ask the model: ``forward`` takes what the model takes."""

    name: str
    forward: Callable[[Any], Any]


class Optimizer:
    """Stands in front of a module and asks the fastest verified form of it.

    Args:
        model: a ``torch.nn.Module`` in evaluation mode on the CPU.
        mode: ``freeze``, ``compile`` or ``bf16``.
    """

    def __init__(self, model: Any, mode: str) -> None:
        self._model = model
        self._mode = mode
        self._single: Form | None = None
        self._several: Form | None = None
        self._shapes: dict[tuple[Any, ...], bool] = {}
        self._begun = False
        self._builder: threading.Thread | None = None
        self._refused: set[str] = set()

    @property
    def chosen(self) -> tuple[str, str]:
        """Names of the forms that answer one row and several rows; "eager" is the model itself."""
        one, many = self._single, self._several
        return (one.name if one else "eager", many.name if many else "eager")

    def wait(self, timeout_s: float) -> bool:
        """Wait for a running build; True when none runs."""
        builder = self._builder
        if builder is not None:
            builder.join(timeout_s)
            return not builder.is_alive()
        return True

    def __call__(self, data: Any) -> Any:
        """The model's answer; in the thread that owns the model, under inference mode."""
        form = self._several if len(data) > 1 else self._single
        if form is None:
            if not self._begun:
                self._begun = True
                self._begin(data)
            return self._model(data)
        shape = (data.dtype, *data.shape[1:])
        verified = self._shapes.get(shape)
        if verified:
            return form.forward(data)
        if verified is None and len(self._shapes) < _MAX_SHAPES:
            return self._first(form, shape, data)
        return self._model(data)

    def _begin(self, data: Any) -> None:
        if not data.is_floating_point() or data.ndim < 2 or not len(data):
            # Layouts and precision are worth nothing to token numbers.
            return
        # A copy: the request's own memory is gone when the thread looks.
        sample = data[:1].clone()
        self._builder = threading.Thread(
            target=self._build, args=(sample,), name="optimize", daemon=True
        )
        self._builder.start()

    def _first(self, form: Form, shape: tuple[Any, ...], data: Any) -> Any:
        """The first input of a shape: both answers, and the model's own goes out."""
        answer = self._model(data)
        try:
            difference = deviation(answer, form.forward(data))
        except Exception as error:  # noqa: BLE001 - whatever it is, this shape is not for it
            log.debug("%s failed for %s: %s", form.name, shape, error)
            difference = float("inf")
        self._shapes[shape] = difference <= TOLERANCE[self._mode]
        if not self._shapes[shape]:
            log.warning(
                "inputs of shape [N, %s] are answered by the model as loaded: %s differs by %.1e",
                ", ".join(map(str, shape[1:])),
                form.name,
                difference,
            )
        return answer

    def _build(self, sample: Any) -> None:
        import torch  # noqa: PLC0415 - imported by now

        began = time.monotonic()
        try:
            with torch.inference_mode():
                inputs = {rows: torch.cat([sample] * rows) for rows in SIZES}
                expected = {rows: self._model(data) for rows, data in inputs.items()}
            forms = [form for make in _MAKERS[self._mode] for form in self._made(make)]
            with torch.inference_mode():
                good = [form for form in forms if self._verified(form, inputs, expected)]
                eager = Form("eager", self._model)
                times = _times([eager, *good], {rows: inputs[rows] for rows in (1, SIZES[-1])})
            self._choose(good, times)
        except Exception as error:  # noqa: BLE001 - the model as loaded goes on answering
            log.warning("BYOC_OPTIMIZE=%s has no effect: %s", self._mode, _line(error))
            return
        shape = (sample.dtype, *sample.shape[1:])
        self._shapes[shape] = True
        rows = SIZES[-1]
        log.info(
            "model made faster (BYOC_OPTIMIZE=%s): %s for one row, %s for several; answers agree "
            "within %.0e of the largest value",
            self._mode,
            *self.chosen,
            TOLERANCE[self._mode],
        )
        log.debug(
            "took %.1f s; microseconds a row at 1 and %d rows: %s",
            time.monotonic() - began,
            rows,
            ", ".join(
                f"{name} {1e6 * t[1]:.0f} {1e6 * t[rows] / rows:.0f}" for name, t in times.items()
            ),
        )

    def _made(self, make: Callable[[Any], Form]) -> list[Form]:
        with warnings.catch_warnings():
            # torch.jit warns that it is old; nothing else freezes without a compiler.
            warnings.simplefilter("ignore")
            try:
                return [make(self._model)]
            except Exception as error:  # noqa: BLE001 - many models cannot be scripted
                log.debug("%s: %s", make.__name__, _line(error))
                self._refused.add(f"{make.__name__.strip('_')}: {_line(error)}")
                return []

    def _verified(self, form: Form, inputs: dict[int, Any], expected: dict[int, Any]) -> bool:
        worst = 0.0
        try:
            for rows, data in inputs.items():
                # The first passes of a scripted form are its slow, profiled ones.
                for _ in range(3):
                    worst = max(worst, deviation(expected[rows], form.forward(data)))
        except Exception as error:  # noqa: BLE001 - a form that fails is not used
            self._refused.add(f"{form.name}: {_line(error)}")
            return False
        if worst > TOLERANCE[self._mode]:
            log.warning(
                "%s is not used: its answers differ from the model's by %.1e of the largest value, "
                "the tolerance is %.0e",
                form.name,
                worst,
                TOLERANCE[self._mode],
            )
            return False
        return True

    def _choose(self, forms: list[Form], times: dict[str, dict[int, float]]) -> None:
        if not forms:
            why = "; ".join(sorted(self._refused)) or "no form gave the model's answers"
            level = logging.DEBUG if self._mode == "freeze" else logging.WARNING
            log.log(level, "BYOC_OPTIMIZE=%s has no effect: %s", self._mode, why)
            return
        for rows in (1, SIZES[-1]):
            best = min(forms, key=lambda form: times[form.name][rows])
            if times[best.name][rows] < WORTH * times["eager"][rows]:
                if rows == 1:
                    self._single = best
                else:
                    self._several = best


def deviation(expected: Any, seen: Any) -> float:
    """Largest difference of two answers, as a share of the largest expected value.

    Raises:
        ValueError: they differ in form.
    """
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(expected, torch.Tensor) and isinstance(seen, torch.Tensor):
        if expected.shape != seen.shape or expected.dtype != seen.dtype:
            raise ValueError(f"{tuple(seen.shape)} {seen.dtype} for {tuple(expected.shape)}")
        if not expected.numel():
            return 0.0
        one, other = expected.double(), seen.double()
        if not torch.equal(one.isfinite(), other.isfinite()):
            return float("inf")
        one, other = one.nan_to_num(), other.nan_to_num()
        scale = float(one.abs().max()) or 1.0
        return float((one - other).abs().max()) / scale
    if isinstance(expected, dict) and isinstance(seen, dict) and expected.keys() == seen.keys():
        return max((deviation(expected[name], seen[name]) for name in expected), default=0.0)
    if isinstance(expected, (tuple, list)) and isinstance(seen, (tuple, list)):
        if len(expected) != len(seen):
            raise ValueError(f"{len(seen)} values for {len(expected)}")
        return max(map(deviation, expected, seen), default=0.0)
    if expected == seen:
        return 0.0
    raise ValueError(f"{type(seen).__name__} for {type(expected).__name__}")


def _times(forms: list[Form], inputs: dict[int, Any]) -> dict[str, dict[int, float]]:
    """Shortest pass of each form in seconds, in turns, so that a busy machine slows all alike."""
    times = {form.name: dict.fromkeys(inputs, float("inf")) for form in forms}
    for _ in range(_ROUNDS):
        for rows, data in inputs.items():
            for form in forms:
                began = time.perf_counter()
                form.forward(data)
                seconds = time.perf_counter() - began
                times[form.name][rows] = min(times[form.name][rows], seconds)
    return times


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _scripted(model: Any) -> Any:
    import torch  # noqa: PLC0415 - imported by now

    # Scripting keeps what depends on the data; tracing would bake in one way through it.
    script: Any = torch.jit.script
    return model if isinstance(model, torch.jit.ScriptModule) else script(model)


def _channels_last(model: Any) -> Any:
    """A copy with its convolutions' weights channels-last; the other weights are shared."""
    import torch  # noqa: PLC0415 - imported by now

    tensors = [*model.parameters(), *model.buffers()]
    if not any(tensor.dim() == 4 for tensor in tensors):
        raise ValueError("no two-dimensional convolution in it")
    shared = {id(tensor): tensor for tensor in tensors if tensor.dim() != 4}
    return copy.deepcopy(model, shared).to(memory_format=torch.channels_last)


def _frozen(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    freeze: Any = torch.jit.freeze
    return Form("frozen", freeze(_scripted(model)))


def _frozen_channels_last(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    # A scripted module has no other layout of its own: its tensors are converted in place.
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("scripted already")  # noqa: TRY004 - the model is no wrong type
    freeze: Any = torch.jit.freeze
    return Form("frozen channels-last", freeze(_scripted(_channels_last(model))))


def _onednn(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    freeze: Any = torch.jit.freeze
    optimize: Any = torch.jit.optimize_for_inference
    return Form("frozen oneDNN", optimize(freeze(_scripted(model))))


def _eager_channels_last(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("scripted already")  # noqa: TRY004 - the model is no wrong type
    return Form("eager channels-last", _channels_last(model))


def _bf16(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    low = copy.deepcopy(model).to(torch.bfloat16)
    if not isinstance(model, torch.jit.ScriptModule) and any(
        p.dim() == 4 for p in low.parameters()
    ):
        low = low.to(memory_format=torch.channels_last)
    freeze: Any = torch.jit.freeze
    frozen = freeze(_scripted(low))

    def forward(data: Any) -> Any:
        return _float32(frozen(data.to(torch.bfloat16)))

    return Form("bf16", forward)


def _float32(answer: Any) -> Any:
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(answer, torch.Tensor):
        return answer.float() if answer.dtype is torch.bfloat16 else answer
    if isinstance(answer, dict):
        return {name: _float32(value) for name, value in answer.items()}
    if isinstance(answer, (tuple, list)):
        return type(answer)(map(_float32, answer))
    return answer


def _compiled(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    if not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise ValueError("torch.compile needs a C++ compiler (g++) and none is on PATH")
    return Form("compiled", torch.compile(model, dynamic=True, options={"freezing": True}))


_MAKERS: dict[str, tuple[Callable[[Any], Form], ...]] = {
    "freeze": (_frozen, _frozen_channels_last, _onednn, _eager_channels_last),
    "compile": (_compiled,),
    "bf16": (_bf16,),
}
