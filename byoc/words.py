"""Words of the command line and values of files, as the API takes them."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from byoc.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME = re.compile(r"[A-Za-z0-9](?:-*[A-Za-z0-9]){0,62}")


def pairs(words: Iterable[str], noun: str, example: str) -> dict[str, str]:
    """``name=value`` words as a dictionary.

    Raises:
        SettingsError: One is none, or a name is there twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise SettingsError(f"{word!r} is no {noun}; write NAME=VALUE, such as {example}")
        if name in found:
            raise SettingsError(f"the {noun} {name} is given twice")
        found[name] = value
    return found


def hyperparameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Typed values as the text that the API carries, and from which `train` reads the same types.

    Numbers, booleans, lists and tables become JSON. Text stays as it is, unless it would then be
    read as something else: ``"007"`` keeps its quotes. What came from a command line is text
    whose meaning is open, and goes through `pairs` alone.

    Raises:
        SettingsError: A value has no such form.
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, str):
            found[name] = json.dumps(value) if _reads_as_json(value) else value
            continue
        try:
            found[name] = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise SettingsError(
                f"the hyperparameter {name} is {value!r}; expected text, a number, a boolean, a "
                "list or a table"
            ) from None
    return found


def seconds(text: str) -> int:
    """A length of time: ``90``, ``90s``, ``15m``, ``2h``, ``1d``.

    Raises:
        SettingsError: It is none.
    """
    found = re.fullmatch(r"(\d+) ?([smhd]?)", text.strip())
    if not found or int(found[1]) == 0:
        raise SettingsError(f"{text!r} is no length of time; write 90s, 15m, 2h or 1d")
    return int(found[1]) * _UNITS[found[2]]


def fresh_name(stem: str) -> str:
    """A name for a job or an endpoint that is not taken: the stem and the time."""
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    stem = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-") or "byoc"
    return f"{stem[:42].rstrip('-')}-{stamp}-{int(now * 1000) % 1000:03d}"


def checked_name(name: str) -> str:
    """The name, if SageMaker takes it for a job or an endpoint.

    Raises:
        SettingsError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} is no name; expected 1 to 63 letters, digits and inner dashes"
        )
    return name


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text in ("True", "False", "None")
    return True
