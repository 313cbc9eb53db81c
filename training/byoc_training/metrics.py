"""Names, lines and definitions of metrics: what a program prints and what the platform reads.

The platform searches both output streams of a job for the regular expressions of its
MetricDefinitions; the first group is the number (contract § 5). A line here is
``epoch=1; train_loss=0.1234; test_accuracy=0.98;``.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Limits of CreateTrainingJob (API MetricDefinition); the name's 255 are MLflow's 250 and less.
MOST_DEFINITIONS, LONGEST_REGEX = 40, 500
#: What MLflow takes as well, and neither a line nor a regular expression stumbles over.
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"{_WORD}(?:/{_WORD})*")
LONGEST_NAME = 200
_VALUE = r"([-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|nan|inf))"


def metric_definitions(names: Sequence[str]) -> list[dict[str, str]]:
    """MetricDefinitions for a training job whose program logs these metrics.

    Args:
        names: As they are given to `Tracker.log`; at most 40.

    Returns:
        ``{"Name": ..., "Regex": ...}`` for each, as CreateTrainingJob takes them.

    Raises:
        ValueError: There are too many, one is there twice, is no name, or is too long.
    """
    if len(names) > MOST_DEFINITIONS:
        raise ValueError(f"{len(names)} metrics; a job takes at most {MOST_DEFINITIONS}")
    definitions: dict[str, str] = {}
    for name in names:
        if name in definitions:
            raise ValueError(f"the metric {name!r} is named twice")
        # What stands before keeps `loss` from being read out of `train_loss`.
        regex = rf"(?:^|\s){re.escape(checked_name(name))}={_VALUE};"
        if len(regex) > LONGEST_REGEX:
            raise ValueError(f"the regular expression for {name!r} is longer than {LONGEST_REGEX}")
        definitions[name] = regex
    return [{"Name": name, "Regex": regex} for name, regex in definitions.items()]


def line(step_name: str, step: int, values: Mapping[str, float]) -> str:
    """What is printed for one step: integers as they are, others with six digits."""
    parts = [f"{step_name}={step};"]
    parts += [
        f"{name}={value if isinstance(value, int) else format(value, '.6g')};"
        for name, value in values.items()
    ]
    return " ".join(parts)


def checked_name(name: str) -> str:
    """The name, if it is one.

    Raises:
        ValueError: It is none.
    """
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a metric; expected letters, digits, '_', '-' and '.', or "
            f"such words with '/' between them, {LONGEST_NAME} characters at most"
        )
    return name


def number(name: str, value: Any) -> float:
    """A whole number as ``int``, others as ``float`` takes them; tensors of one element too.

    Raises:
        TypeError: It is no number.
    """
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):
        pass
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the metric {name!r} is {value!r:.80}; expected a number") from None
