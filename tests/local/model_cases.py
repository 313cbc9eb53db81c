"""Requests with one wrong field each, generated from the service model.

A request in which every member of the model is there, at every depth, is right as far as the
model goes. So whatever is said of it after one change is said of that change.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc.local import service_model
from tests.local.conftest import ROLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: A name, a value, and words.
    Values = Iterator[tuple[str, Any, tuple[str, ...]]]

#: The Create operations, and what lists what they leave behind.
OPERATIONS = {
    "CreateTrainingJob": ("ListTrainingJobs", "TrainingJobSummaries"),
    "CreateEndpoint": ("ListEndpoints", "Endpoints"),
    "CreateModel": ("ListModels", "Models"),
    "CreateEndpointConfig": ("ListEndpointConfigs", "EndpointConfigs"),
    "CreateTransformJob": ("ListTransformJobs", "TransformJobSummaries"),
    "CreateProcessingJob": ("ListProcessingJobs", "ProcessingJobSummaries"),
}
#: Strings that fit the model's patterns; the first that fits a shape stands for it.
EXAMPLES = (
    "a-value-that-fits",
    "avaluethatfits",
    "s3://bucket/key",
    ROLE,
    "arn:aws:lambda:us-east-1:123456789012:function:f",
    "fs-0123456789a",
    "/opt/ml/x",
    "8K",
    "mig-1g.10gb",
    "owner/name",
    "arn:aws:sns:us-east-1:123456789012:topic",
    *(
        f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/x/{'x' * 20}"
        for kind in ("training-plan", "mlflow-app", "model-package-group", "model-package")
    ),
    "arn:aws:sagemaker:us-east-1:aws:hub-content/Hub/DataSet/x",
    "arn:aws:sagemaker:us-east-1:aws:hub-content/Hub/Model/x",
    "https://x/",
    "s3://x/",
)
#: Strings that fit few patterns.
COUNTEREXAMPLES = ("not this one!", "-", "ä", " ", "\x01")
#: JSON of types that the model's are not, and the words of AWS's reader.
SCALAR_EXPECTED: tuple[tuple[Any, str], ...] = (
    ([], "Start of list found where not expected"),
    ({}, "Start of structure or map found where not expected."),
)
COLLECTION_EXPECTED = (("text", "Unexpected field type"), (7, "Unexpected field type"))
WRONG_TYPES: dict[str, tuple[tuple[Any, str], ...]] = {
    "string": (
        (7, "NUMBER_VALUE can not be converted to a String"),
        (True, "TRUE_VALUE can not be converted to a String"),
        *SCALAR_EXPECTED,
    ),
    "integer": (
        ("7", "STRING_VALUE can not be converted to an Integer"),
        (7.5, "DECIMAL_VALUE can not be converted to an Integer"),
        (False, "FALSE_VALUE can not be converted to an Integer"),
        (2**31, "Numeric value out of range of int"),
        *SCALAR_EXPECTED,
    ),
    "long": (
        ("7", "STRING_VALUE can not be converted to a Long"),
        (-(2**63) - 1, "Numeric value out of range of long"),
        *SCALAR_EXPECTED,
    ),
    "float": (
        ("7", "STRING_VALUE can not be converted to a Float"),
        (10**400, "Numeric value out of range of float"),
        *SCALAR_EXPECTED,
    ),
    "boolean": (
        ("true", "STRING_VALUE can not be converted to a Boolean"),
        (1, "NUMBER_VALUE can not be converted to a Boolean"),
        *SCALAR_EXPECTED,
    ),
    "structure": (([], "Start of list found where not expected"), *COLLECTION_EXPECTED),
    "map": (([], "Start of list found where not expected"), *COLLECTION_EXPECTED),
    "list": (
        ({}, "Start of structure or map found where not expected."),
        *COLLECTION_EXPECTED,
    ),
}


def example(shape: Any) -> Any:
    """A value with everything that a shape can have, which fits it."""
    kind, least = shape.type_name, max(1, shape.metadata.get("min", 1))
    if kind == "structure":
        return {name: example(member) for name, member in shape.members.items()}
    if kind == "list":
        return [example(shape.member)] * least
    if kind == "map":
        return {example(shape.key): example(shape.value)}
    if kind == "string":
        named = shape.metadata.get("enum")
        return named[0] if named else next(one for one in EXAMPLES if fits(one, shape))
    return True if kind == "boolean" else least


def pattern_of(shape: Any) -> str:
    """A shape's pattern in Python's syntax."""
    pattern: str = shape.metadata.get("pattern", ".*")
    for java, python in (
        (r"\p{Alnum}", "a-zA-Z0-9"),
        (r"\p{L}\p{Z}\p{N}", r"\w\s"),
        (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"),
    ):
        pattern = pattern.replace(java, python)
    return pattern


def fits(text: str, shape: Any) -> bool:
    """Whether a string is one of a shape, by the model's own words."""
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", len(text))
    return least <= len(text) <= most and not breaks(text, shape)


Place = tuple[str | int, ...]
MISSING = object()


def changed(request: Any, place: Place, value: Any) -> Any:
    """A copy with another value at a place."""
    whole = copy.deepcopy(request)
    *way, last = place
    target = whole
    for step in way:
        target = target[step]
    if value is MISSING:
        del target[last]
    else:
        target[last] = value
    return whole


@dataclass(frozen=True)
class Case:
    """A change of a request, and what is to be said of it.

    Attributes:
        operation: Whose request it is.
        place: Where; a member of a list by its number.
        value: What is put there; `MISSING` takes away what is there.
        code: The error.
        words: They are in its message, one after the other.
        name: Of the case.
    """

    operation: str
    place: Place
    value: Any
    code: str
    words: tuple[str, ...]
    name: str

    @property
    def id(self) -> str:
        place = ".".join(map(str, self.place))
        return f"{self.operation}-{place or 'body'}-{self.name}"

    def request(self) -> Any:
        """The request of the whole model with this change."""
        if not self.place:
            return self.value
        return changed(WHOLE[self.operation], self.place, self.value)


def shape_of(operation: str) -> Any:
    found = service_model.operation(service_model.SAGEMAKER, operation)
    assert found is not None
    return found.input_shape


def path_of(place: Place) -> str:
    """A place as AWS names it."""
    words = ""
    for step in place:
        if isinstance(step, int):
            words += f".{step + 1}.member"
        else:
            words += f".{step[0].lower()}{step[1:]}"
    return words.removeprefix(".")


def cases(operation: str) -> Iterator[Case]:
    """All of an operation."""
    yield from _of(operation, shape_of(operation), WHOLE[operation], ())


def _of(
    operation: str, shape: Any, value: Any, place: Place, *, member: bool = True
) -> Iterator[Case]:
    """Cases of a place and all below it; those of values only where it is a structure's member."""
    for number, (wrong, words) in enumerate(WRONG_TYPES[shape.type_name]):
        yield Case(operation, place, wrong, "SerializationException", (words,), f"type{number}")
    if place and member:
        at = f"at '{path_of(place)}' failed to satisfy constraint: "
        for name, wrong, said in _values(shape, value):
            yield Case(operation, place, wrong, "ValidationException", (at, *said), name)
    if shape.type_name == "structure":
        for name, one in shape.members.items():
            inside = (*place, name)
            if name in shape.required_members:
                yield Case(operation, inside, MISSING, *_null(inside), "missing")
                yield Case(operation, inside, None, *_null(inside), "null")
            yield from _of(operation, one, value[name], inside)
    elif shape.type_name == "list":
        first = (*place, 0)
        if shape.member.type_name == "structure":
            yield Case(operation, first, None, *_null(first), "null")
        yield from _of(operation, shape.member, value[0], first, member=False)
    elif shape.type_name == "map":
        ((key, one),) = value.items()
        yield from _of(operation, shape.value, one, (*place, key), member=False)


def _null(place: Place) -> tuple[str, tuple[str, ...]]:
    at = f"Value null at '{path_of(place)}' failed to satisfy constraint: "
    return "ValidationException", (at + "Member must not be null",)


def _values(shape: Any, value: Any) -> Values:
    """Wrong values of a shape: a name, the value, and words of the constraint that is not met."""
    found = {"list": _lists, "map": _maps, "string": _strings}.get(shape.type_name)
    if found is not None:
        yield from found(shape, value)
    elif shape.type_name != "structure":
        yield from _limits(shape, "value")


def _lists(shape: Any, value: Any) -> Values:
    yield from _sizes(shape, lambda count: [value[0]] * count)
    if shape.member.type_name == "string":
        said = "Member must satisfy constraint: ["
        yield "member-null", [None], (said, "Member must not be null")
        for name, wrong, words in _values(shape.member, value[0]):
            yield f"member-{name}", [wrong], (said, *words)


def _maps(shape: Any, value: Any) -> Values:
    yield from _sizes(shape, lambda count: {f"k{number}": "v" for number in range(count)})
    ((key, member),) = value.items()
    said = "Map value must satisfy constraint: ["
    yield "value-null", {key: None}, (said, "Member must not be null")
    for name, wrong, words in _values(shape.value, member):
        yield f"value-{name}", {key: wrong}, (said, *words)
    for name, wrong, words in _values(shape.key, key):
        yield f"key-{name}", {wrong: member}, ("Map keys must satisfy constraint: [", *words)


def _strings(shape: Any, value: Any) -> Values:
    yield from _sizes(shape, lambda count: "x" * count)
    if "enum" in shape.metadata:
        yield "enum", f"No {value}", ("Member must satisfy enum value set: [",)
    elif wrong := next((one for one in COUNTEREXAMPLES if breaks(one, shape)), None):
        words = f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}"
        yield "pattern", wrong, (words,)


def _sizes(shape: Any, make: Callable[[int], Any]) -> Values:
    """Too short (nothing is shorter than nothing) and too long."""
    for name, value, words in _limits(shape, "length"):
        if value >= 0:
            yield name, make(value), words


def _limits(shape: Any, noun: str) -> Values:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    words = f"Member must have {noun} "
    if least is not None:
        yield "low", least - 1, (f"{words}greater than or equal to {least}",)
    if most is not None:
        yield "high", most + 1, (f"{words}less than or equal to {most}",)


def breaks(text: str, shape: Any) -> bool:
    """Whether a string breaks a shape's pattern."""
    return "pattern" in shape.metadata and not re.fullmatch(pattern_of(shape), text, re.DOTALL)


WHOLE = {operation: example(shape_of(operation)) for operation in OPERATIONS}
CASES = [case for operation in OPERATIONS for case in cases(operation)]
