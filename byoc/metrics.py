"""MetricDefinitions for the lines that `train`'s tracker prints: ``epoch=1; test_loss=0.05;``.

The platform searches a job's log for these regular expressions. The training package has the same
ones (``byoc_training.metrics``); neither imports the other, and a test holds them together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from byoc.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of CreateTrainingJob (API MetricDefinition).
MOST_DEFINITIONS, LONGEST_REGEX = 40, 500
#: What the example logs.
EXAMPLE_METRICS = ("train_loss", "test_loss", "test_accuracy")
_VALUE = r"([-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|nan|inf))"


def metric_definitions(names: Sequence[str]) -> list[dict[str, str]]:
    """``{"Name", "Regex"}`` for each name.

    Raises:
        SettingsError: There are more than 40, one is there twice, or is no name.
    """
    if len(names) > MOST_DEFINITIONS:
        raise SettingsError(f"{len(names)} metrics; a job takes at most {MOST_DEFINITIONS}")
    found: list[dict[str, str]] = []
    for name in names:
        regex = rf"(?:^|\s){re.escape(name)}={_VALUE};"
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", name) or len(regex) > LONGEST_REGEX:
            raise SettingsError(f"{name!r} is no name of a metric; expected letters, digits, _-./")
        if any(name == one["Name"] for one in found):
            raise SettingsError(f"the metric {name!r} is named twice")
        found.append({"Name": name, "Regex": regex})
    return found
