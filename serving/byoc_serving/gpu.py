"""A model on a GPU: its faster forms, and what torch says of its memory. Needs torch."""

from __future__ import annotations

from typing import Any

from byoc_serving.cuda_graphs import CudaCapture, Graphs
from byoc_serving.forms import Form
from byoc_serving.optimize import Optimizer


def optimizer(model: Any, mode: str, device: str, max_rows: int) -> Optimizer:
    """The optimizer for a model where it is.

    Args:
        model: a module.
        mode: ``freeze``, ``compile`` or ``bf16``.
        device: ``cpu`` or ``cuda:0``.
        max_rows: rows of the largest graph.
    """
    if device == "cpu":
        return Optimizer(model, mode)
    import torch  # noqa: PLC0415 - imported by now

    capture = CudaCapture()

    def graphed(form: Form, tolerance: float) -> Form:
        graphs = Graphs(form.forward, model, tolerance, max_rows, capture)
        return Form(f"{form.name} in CUDA graphs", graphs)

    return Optimizer(model, mode, graphed, lambda: torch.cuda.synchronize(device))


def gpu_memory(device: str) -> tuple[int, int]:
    """Bytes that tensors hold, and bytes that torch's allocator holds, of a GPU."""
    import torch  # noqa: PLC0415 - imported by now

    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
