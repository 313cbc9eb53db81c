"""Answers that a model process sent as arrays, encoded in the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc_serving.exchange import Response, error_response
from byoc_serving.faults import classify

if TYPE_CHECKING:
    from byoc_serving.exchange import Invocation


def prepare() -> None:
    """Import numpy and the codecs, which takes longer than a request may wait."""
    import byoc_serving.codecs  # noqa: F401, PLC0415 - it imports numpy


def encoded(
    invocation: Invocation,
    status: int,
    kind: str,
    headers: tuple[tuple[str, str], ...],
    array: tuple[str, tuple[int, ...]],
    payload: bytes,
) -> tuple[Invocation, Response]:
    """An array's answer as the body that the client asked for."""
    import numpy as np  # noqa: PLC0415 - the master imports this module too

    from byoc_serving import codecs  # noqa: PLC0415 - it imports numpy

    try:
        data = np.frombuffer(payload, np.dtype(array[0])).reshape(array[1])
        return invocation, Response(status, codecs.encode(data, kind), kind, headers)
    except Exception as error:  # noqa: BLE001 - any failure is this request's own
        fault = classify("output", error, invocation, default_predict=False)
        return invocation, error_response(fault, invocation.request_id)
