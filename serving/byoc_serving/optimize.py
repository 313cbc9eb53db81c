"""Faster forms of the model, taken into use only once they have given the model's own answers.

A form is built in a thread of its own from the first real input that is seen, compared with the
model as loaded on that input at several batch sizes, timed, and used from then on where it is
faster. An input of another shape is compared once before its form answers alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from byoc_serving.deviation import deviation
from byoc_serving.forms import CUDA_MAKERS, MAKERS, Form, traced
from byoc_serving.torch_errors import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Rows of the passes that are compared and timed.
SIZES = (1, 2, 8)
#: Largest difference to the model as loaded, as a share of the largest value of its answer.
TOLERANCE = {"freeze": 1e-4, "compile": 1e-4, "bf16": 5e-2}
#: On a GPU, where convolutions multiply in TF32 or not as the batch size suits the library.
CUDA_TOLERANCE = {"freeze": 2e-3, "compile": 2e-3, "bf16": 5e-2}
#: A form must be this much faster to be worth its memory.
WORTH = 0.97
#: Input shapes that are remembered; a model that sees more is asked as loaded.
_MAX_SHAPES = 256
_ROUNDS = 8


class Optimizer:
    """Stands in front of a module and asks the fastest verified form of it.

    To be made while nobody asks the module (``fused.trace``).

    Args:
        model: a ``torch.nn.Module`` in evaluation mode.
        mode: ``freeze``, ``compile`` or ``bf16``.
        graphed: for a model on a GPU: puts CUDA graphs in front of the form that is chosen, the
            model as loaded included; None: the model is on the CPU.
        synchronize: waits until a pass is done.
    """

    def __init__(
        self,
        model: Any,
        mode: str,
        graphed: Callable[[Form, float], Form] | None = None,
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self._model = model
        self._mode = mode
        self._graphed = graphed
        self._synchronize = synchronize
        self._makers = (MAKERS if graphed is None else CUDA_MAKERS)[mode]
        if graphed is None and mode == "freeze":
            self._makers = (traced(model), *self._makers)
        self._tolerance = (TOLERANCE if graphed is None else CUDA_TOLERANCE)[mode]
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
            return self._formed(form, shape, data)
        if verified is None and len(self._shapes) < _MAX_SHAPES:
            return self._first(form, shape, data)
        return self._model(data)

    def _formed(self, form: Form, shape: tuple[Any, ...], data: Any) -> Any:
        """The form's answer, or the model's own: what it has against an input, it says itself.

        A scripted form raises ``torch.jit.Error`` where the model raises an error of its own. No
        form stands for a model that changes its input: the comparison would have found it out.
        """
        try:
            return form.forward(data)
        except Exception as error:
            if is_out_of_memory(error):
                raise  # for the predictor, which tries smaller batches
            # Not the error itself, whose frames hold what the pass has computed.
            failure = _line(error)
        answer = self._model(data)
        self._give_up(form, shape, f"failed: {failure}")
        return answer

    def _give_up(self, form: Form, shape: tuple[Any, ...], why: str) -> None:
        self._shapes[shape] = False
        log.warning(
            "inputs of shape [N, %s] are answered by the model as loaded: %s %s",
            ", ".join(map(str, shape[1:])),
            form.name,
            why,
        )

    def _begin(self, data: Any) -> None:
        if data.ndim < 2 or not len(data):
            return
        if self._graphed is None and not data.is_floating_point():
            # Layouts and precision are worth nothing to token numbers; graphs are.
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
        if difference <= self._tolerance:
            self._shapes[shape] = True
        else:
            self._give_up(form, shape, f"differs by {difference:.1e}")
        return answer

    def _build(self, sample: Any) -> None:
        import torch  # noqa: PLC0415 - imported by now

        began = time.monotonic()
        try:
            with torch.inference_mode():
                inputs = {rows: torch.cat([sample] * rows) for rows in SIZES}
                expected = {rows: self._model(data) for rows, data in inputs.items()}
            forms = [form for make in self._makers for form in self._made(make)]
            with torch.inference_mode():
                good = [form for form in forms if self._verified(form, inputs, expected)]
                eager = Form("eager", self._model)
                timed = {rows: inputs[rows] for rows in (1, SIZES[-1])}
                times = _times([eager, *good], timed, self._synchronize)
            self._choose(good, times)
            self._put_graphs(eager)
        except Exception as error:  # noqa: BLE001 - the model as loaded goes on answering
            log.warning("BYOC_OPTIMIZE=%s has no effect: %s", self._mode, _line(error))
            return
        del forms, good, inputs, expected, timed
        _give_back()
        shape = (sample.dtype, *sample.shape[1:])
        self._shapes[shape] = True
        rows = SIZES[-1]
        log.info(
            "model made faster (BYOC_OPTIMIZE=%s): %s for one row, %s for several; answers agree "
            "within %.0e of the largest value",
            self._mode,
            *self.chosen,
            self._tolerance,
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
        if worst > self._tolerance:
            log.warning(
                "%s is not used: its answers differ from the model's by %.1e of the largest value, "
                "the tolerance is %.0e",
                form.name,
                worst,
                self._tolerance,
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

    def _put_graphs(self, eager: Form) -> None:
        """On a GPU: graphs in front of what was chosen; one set where both are the same form."""
        if self._graphed is None:
            return
        single, several = self._single or eager, self._several or eager
        self._single = self._graphed(single, self._tolerance)
        self._several = (
            self._single if several is single else self._graphed(several, self._tolerance)
        )


def _times(
    forms: list[Form], inputs: dict[int, Any], synchronize: Callable[[], None] = lambda: None
) -> dict[str, dict[int, float]]:
    """Shortest pass of each form in seconds, in turns, so that a busy machine slows all alike."""
    times = {form.name: dict.fromkeys(inputs, float("inf")) for form in forms}
    for _ in range(_ROUNDS):
        for rows, data in inputs.items():
            for form in forms:
                synchronize()
                began = time.perf_counter()
                form.forward(data)
                synchronize()
                seconds = time.perf_counter() - began
                times[form.name][rows] = min(times[form.name][rows], seconds)
    return times


def _give_back() -> None:
    """Return to the system what the forms that were not chosen have left free (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
