"""Whether values fit a shape of the service model, said in AWS's words."""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

from byoc.local.faults import AwsError, invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A shape of botocore's; its members are not typed.
Shape = Any
#: Names of JSON's types in the words of AWS's deserialiser.
_TYPES = {"string": str, "boolean": bool, "integer": int, "long": int, "structure": dict,
          "map": dict, "list": list}  # fmt: skip
#: A step through an expression: a class of POSIX or Unicode by name, an escape, or a character.
_STEP = re.compile(r"\\p\{(\w+)\}|\\.|.", re.DOTALL)
_POSIX = {"ASCII": r"\x00-\x7f", "Print": r"\x20-\x7e", "Alnum": "a-zA-Z0-9"}


def parse(value: Any, shape: Shape) -> Any:
    """A request's value, timestamps as ``datetime``.

    Raises:
        AwsError: ``SerializationException`` where a type is wrong, ``ValidationException`` with
            all constraints that are not met.
    """
    parsed = _typed(value, shape)
    problems = list(_problems(parsed, shape, ""))
    if problems:
        count = len(problems)
        noun = "validation error" if count == 1 else "validation errors"
        raise invalid(f"{count} {noun} detected: {'; '.join(problems)}")
    return parsed


def _typed(value: Any, shape: Shape) -> Any:
    """The value with times as ``datetime``, and without what is null or the model does not know."""
    kind = shape.type_name
    if kind == "timestamp":
        return _timestamp(value)
    if kind in ("float", "double"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _mistyped(value, "number")
        return float(value)
    expected = _TYPES.get(kind)
    if expected and (
        not isinstance(value, expected) or (expected is int and isinstance(value, bool))
    ):
        raise _mistyped(value, kind)
    if kind == "structure":
        return {
            name: _typed(one, shape.members[name])
            for name, one in value.items()
            if one is not None and name in shape.members
        }
    if kind == "list":
        return [_typed(one, shape.member) for one in value]
    if kind == "map":
        return {key: _typed(one, shape.value) for key, one in value.items()}
    return value


def _mistyped(value: Any, expected: str) -> AwsError:
    seen = {bool: "BOOLEAN", int: "NUMBER", float: "NUMBER", str: "STRING", list: "LIST"}
    return AwsError(
        "SerializationException",
        f"{seen.get(type(value), 'STRUCTURE')}_VALUE can not be converted to {expected.title()}",
    )


def _timestamp(value: Any) -> dt.datetime:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return dt.datetime.fromtimestamp(value, dt.timezone.utc)
    if isinstance(value, str):
        try:
            parsed = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise _mistyped(value, "timestamp") from None
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.timezone.utc)
    raise _mistyped(value, "timestamp")


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Everything that is wrong, in the order of the request."""
    kind = shape.type_name
    if kind == "structure":
        for name in shape.required_members:
            if name not in value:
                yield _failed(None, _join(path, name), "Member must not be null")
        for name, one in value.items():
            yield from _problems(one, shape.members[name], _join(path, name))
    elif kind == "list":
        yield from _sized(value, shape, path)
        for number, one in enumerate(value, 1):
            yield from _problems(one, shape.member, f"{path}.{number}.member")
    elif kind == "map":
        yield from _sized(value, shape, path)
        yield from _pairs(value, shape, path)
    elif kind == "string":
        yield from _sized(value, shape, path)
        yield from _spelled(value, shape, path)
    elif kind in ("integer", "long", "float", "double"):
        yield from _ranged(value, shape, path)


def _pairs(value: Any, shape: Shape, path: str) -> Iterator[str]:
    for key, one in value.items():
        for problem in _problems(key, shape.key, path):
            constraint = problem.split("constraint: ", 1)[-1]
            yield _failed(value, path, f"Map keys must satisfy constraint: [{constraint}]")
        yield from _problems(one, shape.value, f"{path}.{key}.member")


def _ranged(value: Any, shape: Shape, path: str) -> Iterator[str]:
    lowest, highest = shape.metadata.get("min"), shape.metadata.get("max")
    if lowest is not None and value < lowest:
        yield _failed(value, path, f"Member must have value greater than or equal to {lowest}")
    if highest is not None and value > highest:
        yield _failed(value, path, f"Member must have value less than or equal to {highest}")


def _sized(value: Any, shape: Shape, path: str) -> Iterator[str]:
    shortest, longest = shape.metadata.get("min"), shape.metadata.get("max")
    if shortest is not None and len(value) < shortest:
        constraint = f"Member must have length greater than or equal to {shortest}"
        yield _failed(value, path, constraint)
    if longest is not None and len(value) > longest:
        yield _failed(value, path, f"Member must have length less than or equal to {longest}")


def _spelled(value: str, shape: Shape, path: str) -> Iterator[str]:
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        constraint = f"Member must satisfy enum value set: [{', '.join(allowed)}]"
        yield _failed(value, path, constraint)
    pattern = shape.metadata.get("pattern")
    if pattern and (expression := _compiled(pattern)) and not expression.fullmatch(value):
        yield _failed(value, path, f"Member must satisfy regular expression pattern: {pattern}")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """The model's expression in Python's syntax; None where it has none."""
    translated, in_brackets = "", False
    for step in _STEP.finditer(pattern):
        part = step[0]
        if name := step[1]:
            characters = _POSIX.get(name) or _category(name)
            translated += characters if in_brackets else f"[{characters}]"
            continue
        in_brackets = part != "]" if in_brackets else part == "["
        translated += r"\Z" if part == r"\z" else part
    try:
        return re.compile(translated, re.DOTALL)
    except re.error:
        return None


@functools.cache
def _category(name: str) -> str:
    """The characters of one of Unicode's categories, such as L for letters, as ranges."""
    numbers = (n for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n))[0] == name)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


def _failed(value: Any, path: str, constraint: str) -> str:
    return f"Value {_shown(value)} at '{path}' failed to satisfy constraint: {constraint}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "'{" + ", ".join(f"{key}={one}" for key, one in value.items()) + "}'"
    if isinstance(value, list):
        return "'[" + ", ".join(str(one) for one in value) + "]'"
    return "null" if value is None else f"'{value}'"


def _join(path: str, name: str) -> str:
    """AWS names members with a small first letter."""
    small = name[:1].lower() + name[1:]
    return f"{path}.{small}" if path else small
