"""Predictions of any kind as arrays, numbers and plain containers of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from byoc_serving.errors import NotAcceptableError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rows_of(prediction: Any) -> Any:
    """Tensors as arrays, all the way down; nothing else changes.

    Tensors are known by their methods, so that this module works without torch. bfloat16 has
    no array type and becomes float32.

    Raises:
        TypeError: something inside cannot be sent.
    """
    if isinstance(prediction, np.ndarray):
        return prediction
    if hasattr(prediction, "detach") and hasattr(prediction, "cpu"):
        return _array(prediction)
    if isinstance(prediction, dict):
        return {str(name): rows_of(value) for name, value in prediction.items()}
    if isinstance(prediction, (list, tuple)):
        return [rows_of(value) for value in prediction]
    if isinstance(prediction, np.generic):
        return prediction.item()
    if prediction is None or isinstance(prediction, (bool, int, float, str)):
        return prediction
    kind = type(prediction)
    raise TypeError(
        f"a prediction of type {kind.__module__}.{kind.__qualname__} cannot be encoded; return "
        "tensors, arrays, numbers, strings, or lists and dicts of them, or write an output_fn"
    )


def _array(tensor: Any) -> NDArray[Any]:
    try:
        # Nearly every answer: on the CPU, without a gradient, of a type that numpy has.
        array: NDArray[Any] = tensor.numpy()
    except (TypeError, RuntimeError):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        array = tensor.resolve_conj().resolve_neg().numpy()
    return array


def numbers(prediction: Any, kinds: str, limit: str) -> NDArray[Any]:
    """A prediction as one array.

    Args:
        prediction: arrays and plain containers.
        kinds: numpy's letters of the kinds that the format carries.
        limit: what the format carries, as the beginning of a sentence.

    Raises:
        NotAcceptableError: it is no array of such numbers.
    """
    try:
        array = np.asarray(prediction)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in kinds:
        raise NotAcceptableError(
            f"{limit} and this answer has another form; accept application/json"
        )
    return array
