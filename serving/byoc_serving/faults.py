"""Which error an exception out of the handler or the model means for the client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from byoc_serving.errors import (
    BadBodyError,
    InternalError,
    RefusedByModelError,
    RequestError,
    UnavailableError,
)
from byoc_serving.exchange import one_line
from byoc_serving.handler import EscapeError, explain
from byoc_serving.torch_errors import as_raised, is_device_error, is_out_of_memory

if TYPE_CHECKING:
    from byoc_serving.exchange import Invocation

log = logging.getLogger(__name__)

#: What a model raises when it gets an input of the wrong shape, dtype or structure; an exported
#: program checks its guards with assertions.
_REFUSALS = (AssertionError, RuntimeError, TypeError, IndexError, NotImplementedError)
#: How torch talks of shapes and dtypes, in bare RuntimeErrors.
_SHAPE_WORDS = ("shape", "size", "dtype", "dimension", "expected", "Expected")


def classify(
    stage: str, error: Exception, invocation: Invocation, *, default_predict: bool
) -> RequestError:
    """An exception as the request's error; unexpected ones are logged with their traceback.

    ``input_fn``: ValueError, Pillow's errors and torch's complaints of shapes are the body's
    fault, 400. ``predict_fn``: ValueError and torch's complaints are 422, as is nearly anything
    out of a model that our own predict_fn calls. Everything else is a bug: 500, with an id that
    the log line carries.

    Args:
        stage: ``input``, ``predict``, ``output`` or ``batch``.
        error: what was raised.
        invocation: whose request it was.
        default_predict: the model was called by our own predict_fn.
    """
    if isinstance(error, RequestError):
        return error
    identifier = invocation.request_id
    if is_out_of_memory(error):
        log.error("request %s: out of memory: %s", identifier, one_line(str(error)))
        return UnavailableError(
            "out of memory for this request; send smaller batches", "out_of_memory"
        )
    if is_device_error(error):
        log.error("request %s: the device failed: %s", identifier, one_line(str(error)))
        return UnavailableError(
            "the device failed while it ran this request; its process is being replaced",
            "device_failed",
        )
    raised = as_raised(error)
    if stage == "input" and (
        isinstance(raised, ValueError)
        or _is_torch_complaint(raised)
        or type(raised).__module__.startswith("PIL")
    ):
        _trace(identifier, stage, error)
        return BadBodyError(explain(raised, None))
    if stage == "predict" and (
        isinstance(raised, ValueError)
        or _is_torch_complaint(raised)
        or (default_predict and isinstance(raised, _REFUSALS))
    ):
        _trace(identifier, stage, error)
        return RefusedByModelError(f"the model refuses this input: {explain(raised, None)}")
    log.error(
        "request %s failed in %s_fn",
        identifier,
        stage,
        exc_info=error,
        extra={"request_id": identifier},
    )
    escaped = isinstance(error, EscapeError)
    what = error if escaped else f"the handler failed in {stage}_fn with {type(raised).__name__}"
    return InternalError(f"{what}; the log has the details under this request_id")


def _trace(identifier: str, stage: str, error: Exception) -> None:
    """Where the client's error came from: it may be a bug all the same."""
    log.debug("request %s refused in %s_fn", identifier, stage, exc_info=error)


def _is_torch_complaint(error: Exception) -> bool:
    if type(error) is not RuntimeError or is_device_error(error):
        return False
    return any(word in str(error) for word in _SHAPE_WORDS)
