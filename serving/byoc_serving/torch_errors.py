"""What torch's errors mean where they have no class of their own: by their words."""

from __future__ import annotations

import builtins
import contextlib
import re

#: How the allocators say that they failed (c10/core/impl/alloc_cpu.cpp,
#: c10/cuda/CUDACachingAllocator.cpp): inside a scripted model the CUDA one's class is lost.
_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory")
#: How torch and its libraries begin when the device itself failed.
_DEVICE_WORDS = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS_EXECUTION_FAILED")
#: How TorchScript's interpreter begins (torch/csrc/jit/runtime/interpreter.cpp), and where in its
#: source listing the line that failed is marked.
_SCRIPT, _MARK = "The following operation failed in the TorchScript interpreter", "<--- HERE\n"
#: The error below the listing, by class and words; some are called RuntimeErrors first.
_RAISED = re.compile(
    r"^(?:RuntimeError: (?=(?:Assertion|Key)Error: ))?(?:\w+\.)*(\w+): ?(.*)\Z",
    re.MULTILINE | re.DOTALL,
)


class ScriptError(RuntimeError):
    """A scripted model raised what cannot be told in a class of Python's."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might succeed: the memory, the device's or not, is too small."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY))
    )


def is_device_error(error: BaseException) -> bool:
    """Whether the error is the device's, after which its context in this process is unusable.

    CUDA reports such errors (assertions in kernels, illegal addresses, ECC) at whatever call comes
    next, and at every call from then on.
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    text = str(error)
    return any(words in text for words in _DEVICE_WORDS)


def as_raised(error: Exception) -> Exception:
    """What a scripted model's source raised, as far as that is kept; any other error itself.

    The interpreter wraps a listing of the source around the words, which would be taken for words
    of the error, and makes ``torch.jit.Error`` of whatever the source raises. Lost are the classes
    of errors out of operators (an IndexError is a RuntimeError there) and of the model's own.
    """
    text = str(error)
    if not text.startswith(_SCRIPT):
        return error
    found = _RAISED.search(text.rpartition(_MARK)[2])
    if found is None:
        return error
    kind, words = getattr(builtins, found[1], None), found[2].strip()
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):
            raised: Exception = kind(words)
            return raised.with_traceback(error.__traceback__)
    # A class of the model's own, or one that wants more than words, as UnicodeDecodeError does.
    return ScriptError(f"{found[1]}: {words}")
