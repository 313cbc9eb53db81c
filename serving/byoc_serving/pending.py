"""An invocation on its way through the three functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byoc_serving.context import Context
    from byoc_serving.exchange import Invocation, Response


class Pending:
    """What one invocation has come to: its input, then its output, then its response."""

    __slots__ = ("context", "data", "invocation", "response")

    def __init__(self, invocation: Invocation, context: Context) -> None:
        self.invocation = invocation
        self.context = context
        self.data: Any = None
        self.response: Response | None = None
