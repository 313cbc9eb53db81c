"""Requests that are not worth a forward any more: out of time, or abandoned by their client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from byoc_serving.errors import DeadlineError
from byoc_serving.exchange import Response, error_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.exchange import Invocation

#: Nobody reads it: the client is gone. The number is the one that nginx logs.
ABANDONED = Response(499)


def too_late(
    invocation: Invocation, clock: Callable[[], float] = time.monotonic
) -> Response | None:
    """The answer that makes the forward needless; None: go on.

    Asked when a request leaves the queue and again before its forward, so that a server under
    more load than it can carry spends its time on answers that somebody still waits for.
    """
    future = invocation.future
    if future is not None and future.cancelled():
        return ABANDONED
    late_s = clock() - invocation.deadline
    if late_s < 0:
        return None
    error = DeadlineError(
        f"the request waited {late_s:.1f} s beyond its deadline and was not run; send fewer at a "
        "time, add instances, or raise BYOC_DEADLINE_SECONDS"
    )
    return error_response(error, invocation.request_id)
