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
    from collections.abc import Callable, Iterator, Sequence

#: A shape of botocore's; its members are not typed.
Shape = Any
#: What JSON has for the model's scalars, and the width of its whole numbers.
_TYPES = {"string": str, "boolean": bool, "integer": int, "long": int}
_BITS = {"integer": 32, "long": 64}
#: A step through an expression: a class of POSIX or Unicode by name, an escape, or a character.
_STEP = re.compile(r"\\p\{(\w+)\}|\\.|.", re.DOTALL)
_POSIX = {"ASCII": r"\x00-\x7f", "Print": r"\x20-\x7e", "Alnum": "a-zA-Z0-9"}
#: Characters beyond 65,535: Java's expressions have them as two units of UTF-16.
_BEYOND = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")


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
    """The value with times as ``datetime``, and without members that are null or unknown."""
    kind = shape.type_name
    if kind == "structure":
        return {
            name: _typed(one, shape.members[name])
            for name, one in _collection(value, dict).items()
            if one is not None and name in shape.members
        }
    if kind == "list":
        members = _collection(value, list)
        return [None if one is None else _typed(one, shape.member) for one in members]
    if kind == "map":
        pairs = _collection(value, dict).items()
        return {key: None if one is None else _typed(one, shape.value) for key, one in pairs}
    return _scalar(value, kind)


def _collection(value: Any, kind: type) -> Any:
    if isinstance(value, kind):
        return value
    raise _unexpected(value) or _unreadable("Unexpected field type")


def _scalar(value: Any, kind: str) -> Any:
    if unexpected := _unexpected(value):
        raise unexpected
    if kind == "timestamp":
        return _timestamp(value)
    if kind in ("float", "double"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _mistyped(value, kind)
        return _number(value, kind)
    expected = _TYPES.get(kind)
    if expected and (
        not isinstance(value, expected) or (expected is int and isinstance(value, bool))
    ):
        raise _mistyped(value, kind)
    if kind in _BITS and not -(2 ** (_BITS[kind] - 1)) <= value < 2 ** (_BITS[kind] - 1):
        raise _out_of_range(kind)
    return value


def _number(value: float, kind: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise _out_of_range(kind) from None
    if not math.isfinite(number):
        raise _out_of_range(kind)
    return number


def _unreadable(message: str) -> AwsError:
    return AwsError("SerializationException", message)


def _unexpected(value: Any) -> AwsError | None:
    """What is said of a collection in a wrong place."""
    if isinstance(value, list):
        return _unreadable("Start of list found where not expected")
    if isinstance(value, dict):
        return _unreadable("Start of structure or map found where not expected.")
    return None


def _out_of_range(kind: str) -> AwsError:
    return _unreadable(f"Numeric value out of range of {'int' if kind == 'integer' else kind}")


def _mistyped(value: Any, expected: str) -> AwsError:
    seen = {int: "NUMBER", float: "DECIMAL", str: "STRING"}.get(type(value), str(value).upper())
    article = "an" if expected == "integer" else "a"
    return _unreadable(f"{seen}_VALUE can not be converted to {article} {expected.title()}")


def _timestamp(value: Any) -> dt.datetime:
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return dt.datetime.fromtimestamp(value, dt.timezone.utc)
        parsed = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.timezone.utc)
        return aware.astimezone(dt.timezone.utc)
    except (ValueError, OverflowError, OSError, AttributeError):  # no time, or none of any calendar
        raise _mistyped(value, "timestamp") from None


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Everything that is wrong, in the order of the request."""
    kind = shape.type_name
    if value is None:
        yield _failed(None, path, "Member must not be null")
    elif kind == "structure":
        for name in shape.required_members:
            if name not in value:
                yield _failed(None, _join(path, name), "Member must not be null")
        for name, one in value.items():
            yield from _problems(one, shape.members[name], _join(path, name))
    else:
        for words, holds in _constraints(shape):
            if not holds(value):
                yield _failed(value, path, words)
        if kind == "list":
            yield from _inside(value, path, [*enumerate(value, 1)], shape.member, "Member")
        elif kind == "map":
            yield from _inside(value, path, [(key, key) for key in value], shape.key, "Map keys")
            yield from _inside(value, path, [*value.items()], shape.value, "Map value")


def _inside(
    whole: Any, path: str, members: Sequence[tuple[Any, Any]], shape: Shape, noun: str
) -> Iterator[str]:
    """What is wrong in a list or a map: of scalars, it is said of the whole and names no member."""
    if shape.type_name in ("structure", "list", "map"):
        for key, one in members:
            yield from _problems(one, shape, f"{path}.{key}.member")
        return
    constraints = _constraints(shape)
    values = [one for _, one in members]
    if None in values:
        yield _failed(whole, path, f"{noun} must satisfy constraint: [Member must not be null]")
    elif not all(holds(one) for _, holds in constraints for one in values):
        listed = ", ".join(words for words, _ in constraints)
        yield _failed(whole, path, f"{noun} must satisfy constraint: [{listed}]")


def _constraints(shape: Shape) -> list[tuple[str, Callable[[Any], bool]]]:
    """What the model asks of a value itself, in AWS's words and order; each with its test."""
    lowest, highest = shape.metadata.get("min"), shape.metadata.get("max")
    found: list[tuple[str, Callable[[Any], bool]]] = []
    number = shape.type_name in ("integer", "long", "float", "double")
    measured, measure = ("value", float) if number else ("length", len)
    if highest is not None:
        words = f"Member must have {measured} less than or equal to {highest}"
        found.append((words, lambda value: measure(value) <= highest))
    if lowest is not None:
        words = f"Member must have {measured} greater than or equal to {lowest}"
        found.append((words, lambda value: measure(value) >= lowest))
    if allowed := shape.metadata.get("enum"):
        words = f"Member must satisfy enum value set: [{', '.join(allowed)}]"
        found.append((words, lambda value: value in allowed))
    pattern = shape.metadata.get("pattern")
    if pattern and (expression := _compiled(pattern)):
        words = f"Member must satisfy regular expression pattern: {pattern}"
        found.append((words, lambda value: expression.fullmatch(value) is not None))
    return found


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """The model's expression in Python's syntax; None where it has none."""
    translated, in_brackets = "", False
    for step in _STEP.finditer(pattern.replace(*_BEYOND)):
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
    numbers = (
        n for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)).startswith(name)
    )
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
