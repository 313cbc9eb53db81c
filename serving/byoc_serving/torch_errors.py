"""What torch's errors mean where they have no class of their own: by their words."""

from __future__ import annotations

#: How torch says that the CPU's allocator failed (c10/core/impl/alloc_cpu.cpp).
_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"
#: How torch and its libraries begin when the device itself failed.
_DEVICE_WORDS = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS_EXECUTION_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might succeed: the memory, the device's or not, is too small."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and _CPU_MEMORY in str(error))
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
