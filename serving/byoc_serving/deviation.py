"""How far two answers of a model are from each other. Needs torch when called."""

from __future__ import annotations

from typing import Any


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
