"""The list of deliberate differences: what an entry is, and how one is put on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.training.oracle.configuration import Configuration, View

    Change = Callable[[Configuration, View], None]


@dataclass(frozen=True)
class Difference:
    """One deliberate difference.

    Attributes:
        name: What differs.
        reason: Why.
        apply: Turns the toolkit's view into ours in this one respect.
    """

    name: str
    reason: str
    apply: Change


DIFFERENCES: list[Difference] = []


def differs(name: str, reason: str) -> Callable[[Change], Change]:
    """Put a difference on the list."""

    def put(change: Change) -> Change:
        DIFFERENCES.append(Difference(name, reason, change))
        return change

    return put


@dataclass(frozen=True)
class Reading:
    """What of one hyperparameter differs; None is no difference.

    Attributes:
        argument: On the command line.
        value: In SM_HPS, alone in a tuple.
        variable: In SM_HP_*.
    """

    argument: str | None = None
    value: tuple[Any] | None = None
    variable: str | None = None


def differs_in_values(name: str, reason: str) -> Callable[[Callable[[Any], Reading]], None]:
    """Put a difference in the reading of values on the list, wherever they are seen."""

    def put(read: Callable[[Any], Reading]) -> None:
        def change(job: Configuration, view: View) -> None:
            values, everything = view.loaded("SM_HPS"), view.loaded("SM_TRAINING_ENV")
            for position, key in enumerate(sorted(values)):
                found = read(job.hyperparameters[key])
                if found.argument is not None:
                    view.argv[2 * position + 1] = found.argument
                if found.value is not None:
                    values[key] = everything["hyperparameters"][key] = found.value[0]
                if found.variable is not None:
                    view.variables[f"SM_HP_{key}".upper()] = found.variable
            framework = view.loaded("SM_FRAMEWORK_PARAMS")
            for key in framework:
                value = read(job.hyperparameters[key]).value
                framework[key] = framework[key] if value is None else value[0]
            everything["additional_framework_parameters"] = framework
            view.dump("SM_HPS", values)
            view.dump("SM_FRAMEWORK_PARAMS", framework)
            view.dump("SM_TRAINING_ENV", everything)
            view.dump("SM_USER_ARGS", view.argv)

        differs(name, reason)(change)

    return put


def strict(raw: Any) -> Any:
    """Standard JSON, or the text."""

    def refuse(_: str) -> Any:
        raise ValueError

    def finite(text: str) -> float:
        if float(text) in (float("inf"), float("-inf")):
            raise ValueError
        return float(text)

    try:
        return json.loads(raw, parse_constant=refuse, parse_float=finite)
    except (TypeError, ValueError):
        return raw
