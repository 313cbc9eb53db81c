"""What requests and loads are told when a model's process has ended."""

from __future__ import annotations

import signal

from byoc_serving.errors import (
    DeadlineError,
    InsufficientMemoryError,
    InternalError,
    ModelLoadError,
    RequestError,
)


def describe(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "an unknown exit code"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def hung(limit_s: float) -> RequestError:
    """The answer to a request that took too long to predict.

    Args:
        limit_s: what a forward pass may take.
    """
    return DeadlineError(
        f"the model has not answered within {limit_s:g} s (BYOC_FORWARD_TIMEOUT_SECONDS); its "
        "process was replaced"
    )


def lost(code: int | None, *, for_memory: bool) -> RequestError:
    """The answer to a request that was inside the processes that died.

    Args:
        code: the last one's exit code.
        for_memory: the kernel has killed for want of memory since the model was loaded.
    """
    if code == -signal.SIGKILL and for_memory:
        return InsufficientMemoryError(
            "the kernel ended the model's process for want of memory; unload other models, "
            "or send smaller requests"
        )
    return InternalError(
        f"the model's process ended with {describe(code)} while it worked on this request; "
        "the model restarts"
    )


def lost_while_loading(code: int | None, phase: str, *, for_memory: bool) -> RequestError:
    """The answer to a load whose process ended.

    Args:
        code: its exit code.
        phase: what it was doing.
        for_memory: the kernel has most likely ended it for want of memory.
    """
    if for_memory:
        return InsufficientMemoryError(
            f"the model's process was killed while loading ({phase}), most often by the kernel for "
            "want of memory; unload another model, or use a larger instance"
        )
    return ModelLoadError(
        f"the model's process ended with {describe(code)} while loading ({phase}); the log may "
        "have more"
    )
