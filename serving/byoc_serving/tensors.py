"""Tensors in and out of a batch: joining, splitting, comparing. Needs torch when called."""

from __future__ import annotations

from typing import Any


def batch_key(data: Any) -> tuple[Any, ...] | None:
    """What two inputs must share to be joined along dimension 0; None: cannot be joined."""
    shape = getattr(data, "shape", None)
    if shape is None or not hasattr(data, "dtype") or not hasattr(data, "device"):
        return None
    if len(shape) < 2 or shape[0] < 1 or str(getattr(data, "layout", "")) != "torch.strided":
        return None
    return (tuple(shape[1:]), data.dtype, data.device)


def join(tensors: list[Any]) -> Any:
    """``[n_i, ...]`` tensors as one ``[sum(n_i), ...]`` tensor."""
    import torch  # noqa: PLC0415 - torch belongs to the model thread

    return torch.cat(tensors)


def split(outputs: Any, sizes: list[int]) -> list[Any]:
    """A batch's output as one output a request, through tuples, lists and dicts.

    Raises:
        ValueError: dimension 0 is not the batch.
    """
    import torch  # noqa: PLC0415 - torch belongs to the model thread

    if isinstance(outputs, torch.Tensor):
        if outputs.ndim < 1 or outputs.shape[0] != sum(sizes):
            raise ValueError(f"the output's shape is {tuple(outputs.shape)} for {sum(sizes)} rows")
        return list(torch.split(outputs, sizes))
    if isinstance(outputs, dict):
        parts = {name: split(value, sizes) for name, value in outputs.items()}
        return [{name: values[i] for name, values in parts.items()} for i in range(len(sizes))]
    if isinstance(outputs, (tuple, list)):
        columns = [split(value, sizes) for value in outputs]
        return [[column[i] for column in columns] for i in range(len(sizes))]
    raise ValueError(f"the output is {type(outputs).__name__}, which has no rows")


def close(one: Any, other: Any, *, coarse: bool = False) -> bool:
    """Whether two outputs agree within what another order of additions may change.

    Args:
        one: an output.
        other: another one.
        coarse: the numbers have at most 11 bits, as TF32's, float16's and bfloat16's.
    """
    import torch  # noqa: PLC0415 - torch belongs to the model thread

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if not one.is_floating_point() and not one.is_complex():
            return bool(torch.equal(one, other))
        low = coarse or one.dtype in (torch.float16, torch.bfloat16)
        tolerance = 1e-2 if low else 1e-4
        return bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance / 10, equal_nan=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            close(one[k], other[k], coarse=coarse) for k in one
        )
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(
            close(a, b, coarse=coarse) for a, b in zip(one, other, strict=True)
        )
    return bool(one == other)
