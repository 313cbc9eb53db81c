"""Hyperparameters: the text that clients send, its typed value, and the argument it becomes.

The API carries text only, and each client makes that text in its own way: raw, through
``str()``, or JSON-encoded once more. Two readers want two things from it:

* a program that declares ``type=str`` wants ``007``, ``1e5`` and ``null`` as they were typed, so
  the command line and ``SM_HP_*`` carry the client's text; only a second layer of JSON quotes
  is taken off, and booleans get one spelling (``True``, as Amazon's toolkit has it);
* a program that reads ``SM_HPS`` wants types, so there the value is parsed.

Lists and objects that arrive as JSON look on the command line as under Amazon's toolkit:
``[1, 2]`` and ``a=1,b=2``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_training.argument import can_be_handed_on
from byoc_training.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Keys that configure the platform or a toolkit and never reach the program. Besides them
#: every key that starts with ``sagemaker_``.
RESERVED_PREFIX = "sagemaker_"
RESERVED = frozenset(
    {"mp_parameters", "_tuning_objective_metric", "default_user_module_name"}
    | {"byoc_launcher", "byoc_processes_per_host"}
)

_WORDS: Mapping[str, bool | None] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter.

    Attributes:
        name: The key.
        text: What the client meant as text, without its extra quotes.
        value: The typed value; JSON can carry it.
    """

    name: str
    text: str
    value: Any

    @property
    def argument(self) -> str:
        """The value on the command line."""
        if isinstance(self.value, bool):
            return str(self.value)
        if self.text.lstrip()[:1] in ("[", "{") and _strict(self.text) is not _NOT_JSON:
            if isinstance(self.value, dict):
                return ",".join(f"{key}={item}" for key, item in sorted(self.value.items()))
            return str(self.value)
        return self.text

    @property
    def variable(self) -> str:
        """The value in ``SM_HP_*``."""
        if isinstance(self.value, bool | list | dict):
            return compact(self.value)
        return self.text

    @property
    def reserved(self) -> bool:
        """Whether the program must not see it."""
        return self.name.startswith(RESERVED_PREFIX) or self.name in RESERVED


def compact(value: object) -> str:
    """JSON with sorted keys and no spaces, the form of every ``SM_*`` list and object."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def parse(name: str, raw: object) -> Hyperparameter:
    """Make sense of one entry of hyperparameters.json.

    Args:
        name: The key.
        raw: The value as the file has it: text on the platform; hand-written files may have
            numbers, booleans, lists and objects.

    Raises:
        ContractError: The text cannot be handed to a process (a NUL or half a surrogate pair).
    """
    if not isinstance(raw, str):
        text = raw if isinstance(raw, str) else json.dumps(raw)
        found = Hyperparameter(name, text, raw)
    else:
        found = _parse_text(name, raw)
    # The argument of an object has its texts unescaped.
    for part, what in ((name, "name"), (found.text, "value"), (found.argument, "value")):
        if not can_be_handed_on(part):
            raise ContractError(
                f"hyperparameters.json: the {what} of {name!r} contains a character that no "
                "process can be given (NUL or half of a surrogate pair); remove it"
            )
    return found


def _parse_text(name: str, raw: str) -> Hyperparameter:
    if raw in _WORDS:
        return Hyperparameter(name, raw, _WORDS[raw])
    value = _strict(raw)
    if isinstance(value, str):
        # Encoded once more by the client, which thereby says that it is text. A boolean in
        # such quotes comes from clients that quote everything.
        word = _WORDS.get(value)
        return Hyperparameter(name, value, word if word is not None else value)
    if value is _NOT_JSON:
        value = _python_literal(raw)
    return Hyperparameter(name, raw, raw if value is _NOT_JSON else value)


_NOT_JSON = object()


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _strict(text: str) -> Any:
    """Standard JSON or ``_NOT_JSON``: NaN and what overflows stay text, as JSON has neither."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _python_literal(text: str) -> Any:
    """A list or dict as ``str()`` wrote it, which is what a generic Estimator sends."""
    if text[:1] not in ("[", "{"):
        return _NOT_JSON
    import ast  # noqa: PLC0415 - only for such values; costs start-up time

    try:
        value = ast.literal_eval(text)
        if isinstance(value, list | dict):
            return json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    return _NOT_JSON


def to_arguments(parameters: Iterable[Hyperparameter]) -> tuple[str, ...]:
    """The command line: sorted by key, ``--key value``, one-letter keys ``-k value``."""
    arguments: list[str] = []
    for parameter in sorted(parameters, key=lambda one: one.name):
        dashes = "-" if len(parameter.name) == 1 else "--"
        arguments += [dashes + parameter.name, parameter.argument]
    return tuple(arguments)


def as_flag(value: object) -> bool:
    """Whether a reserved switch is on, in any spelling that a client uses."""
    if isinstance(value, str):
        return value.strip().lower() in {"true", "1", "yes"}
    return bool(value)
