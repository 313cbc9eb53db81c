"""Reading the JSON files below ``input/config``: tolerant of absence, strict about form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from byoc_training.argument import can_be_handed_on
from byoc_training.errors import ContractError

if TYPE_CHECKING:
    from pathlib import Path


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None when the file is absent or empty.

    Raises:
        ContractError: The file cannot be read, is not UTF-8, not JSON, or not an object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ContractError(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip():
        return None
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ContractError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ContractError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "expected one JSON object"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path} is not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ContractError(f"{path} holds {_kind(found)}; expected one JSON object")
    return found


def text(path: Path, found: dict[str, Any], key: str, default: str) -> str:
    """A text field; the default stands in when it is absent or null.

    Raises:
        ContractError: The field holds something else.
    """
    value = found.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or not can_be_handed_on(value):
        raise ContractError(f"{path}: {key} is {_kind(value)}; expected text")
    return value


def texts(path: Path, found: dict[str, Any], key: str) -> tuple[str, ...] | None:
    """A list of non-empty texts, or None when the key is absent or null.

    Raises:
        ContractError: The field holds something else.
    """
    value = found.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(one, str) and one and can_be_handed_on(one) for one in value
    ):
        raise ContractError(f"{path}: {key} is {_kind(value)}; expected a list of names")
    return tuple(value)


def _kind(value: object) -> str:
    """A JSON value in words, short enough for a message."""
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return f"{names.get(type(value), 'a number' if value is not None else 'null')}, {shown}"
