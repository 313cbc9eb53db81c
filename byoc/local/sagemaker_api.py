"""The SageMaker API: JSON 1.1, one POST an action."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from byoc.local import answers, service_model, validation
from byoc.local.faults import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.actions import Action

TARGET = "SageMaker."


def answer(actions: Mapping[str, Action], target: str, body: bytes) -> dict[str, Any]:
    """The answer to a request, in the form of the service model.

    Args:
        actions: By name.
        target: The header ``X-Amz-Target``.
        body: JSON.

    Raises:
        AwsError: What the client is told.
    """
    name = target.removeprefix(TARGET)
    operation = service_model.operation(service_model.SAGEMAKER, name)
    if operation is None or operation.input_shape is None:
        raise AwsError("UnknownOperationException", f"{name} is no operation of SageMaker")
    if name not in actions:
        raise AwsError(
            "UnknownOperationException", f"{name} is not among what runs locally; see byoc local -h"
        )
    request = validation.parse(_content(body), operation.input_shape)
    result = actions[name](request)
    if operation.output_shape is None:
        return {}
    fitted: dict[str, Any] = answers.fitted(result, operation.output_shape)
    return fitted


def _content(body: bytes) -> Any:
    """A body's JSON.

    Raises:
        AwsError: It is none.
    """
    try:
        return json.loads(body or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise AwsError("SerializationException", "The request body is not valid JSON.") from None


def _no_constant(name: str) -> None:
    """Refuse ``NaN`` and ``Infinity``, which are Python's, not JSON's."""
    raise ValueError(name)
