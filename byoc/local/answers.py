"""Answers in the form of the service model."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: A shape of botocore's; its members are not typed.
Shape = Any


class AnswerError(Exception):
    """We were about to send what the service model does not allow: a fault of ours."""


def fitted(value: Any, shape: Shape, path: str = "") -> Any:
    """The value as JSON has it: members of the shape alone, times as seconds since 1970.

    Raises:
        AnswerError: A required member is missing, or a type is wrong.
    """
    fit = _FITS.get(shape.type_name)
    return value if fit is None else fit(value, shape, path)


def _structure(value: Any, shape: Shape, path: str) -> dict[str, Any]:
    _check(isinstance(value, dict), value, "a structure", path)
    for name in shape.required_members:
        _check(value.get(name) is not None, None, "a value", f"{path}.{name}")
    return {
        name: fitted(value[name], member, f"{path}.{name}")
        for name, member in shape.members.items()
        if value.get(name) is not None
    }


def _list(value: Any, shape: Shape, path: str) -> list[Any]:
    _check(isinstance(value, (list, tuple)), value, "a list", path)
    return [fitted(one, shape.member, path) for one in value]


def _map(value: Any, shape: Shape, path: str) -> dict[str, Any]:
    _check(isinstance(value, dict), value, "a map", path)
    return {key: fitted(one, shape.value, f"{path}.{key}") for key, one in value.items()}


def _timestamp(value: Any, _: Shape, path: str) -> float:
    if isinstance(value, dt.datetime):
        value = value.timestamp()
    _check(isinstance(value, (int, float)), value, "a time", path)
    return float(round(value, 3))


def _string(value: Any, shape: Shape, path: str) -> str:
    _check(isinstance(value, str), value, "a string", path)
    allowed = shape.metadata.get("enum")
    _check(not allowed or value in allowed, value, f"one of {allowed}", path)
    return str(value)


def _boolean(value: Any, _: Shape, path: str) -> bool:
    _check(isinstance(value, bool), value, "true or false", path)
    return bool(value)


def _whole(value: Any, _: Shape, path: str) -> int:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value)
    _check(fits, value, "a whole number", path)
    return int(value)


def _number(value: Any, _: Shape, path: str) -> float:
    _check(isinstance(value, (int, float)), value, "a number", path)
    return float(value)


_FITS: dict[str, Callable[[Any, Shape, str], Any]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "timestamp": _timestamp,
    "string": _string,
    "boolean": _boolean,
    "integer": _whole,
    "long": _whole,
    "float": _number,
    "double": _number,
}


def _check(fits: bool, value: Any, expected: str, path: str) -> None:  # noqa: FBT001 - a condition
    if not fits:
        raise AnswerError(f"{path or 'the answer'} is {value!r}; expected {expected}")
