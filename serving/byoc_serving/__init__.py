"""SageMaker's serving contract: ``GET /ping`` and ``POST /invocations`` for a PyTorch model.

A handler can use the server's own codecs: ``decode(body, content_type)`` and
``encode(prediction, accept)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byoc_serving.codecs import decode, encode

__all__ = ["decode", "encode"]


def __getattr__(name: str) -> Any:
    # numpy must not be imported by the master, which imports this package too.
    if name in __all__:
        from byoc_serving import codecs  # noqa: PLC0415

        return getattr(codecs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
