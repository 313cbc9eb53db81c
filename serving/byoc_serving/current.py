"""The requests that the running code works on, so that the log can name them."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from byoc_serving.exchange import Invocation

#: Invocations rather than their ids: an id is read out of the headers only when a line needs it.
_current: ContextVar[Sequence[Invocation]] = ContextVar("byoc_current", default=())


@contextlib.contextmanager
def working_on(*invocations: Invocation) -> Iterator[None]:
    """Log records in this context belong to these requests."""
    token = _current.set(invocations)
    span = invocations[0].span if len(invocations) == 1 else None
    try:
        if span is None:
            yield
        else:
            with span.current():
                yield
    finally:
        _current.reset(token)


def request_ids() -> str:
    """The ids of the requests at work here, separated by commas; "" outside of any."""
    return ",".join(invocation.request_id for invocation in _current.get())
