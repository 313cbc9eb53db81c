"""A model on a GPU: its faster forms, and what torch says of its memory. Needs torch."""

from __future__ import annotations

import logging
from typing import Any

from byoc_serving.cuda_graphs import CudaCapture, Graphs
from byoc_serving.forms import Form
from byoc_serving.optimize import Optimizer
from byoc_serving.transfers import CudaCopies, Transfers

log = logging.getLogger(__name__)

#: Rows of the largest graph, where requests are not joined to more: one may bring many itself.
GRAPH_ROWS = 256


def optimizer(model: Any, mode: str, device: str, max_rows: int) -> Optimizer:
    """The optimizer for a model where it is.

    Args:
        model: a module.
        mode: ``freeze``, ``compile`` or ``bf16``.
        device: ``cpu`` or ``cuda:0``.
        max_rows: rows that requests are joined to.
    """
    if device == "cpu":
        return Optimizer(model, mode)
    import torch  # noqa: PLC0415 - imported by now

    capture = CudaCapture()

    def graphed(form: Form, tolerance: float) -> Form:
        rows = max(max_rows, GRAPH_ROWS)
        graphs = Graphs(form.forward, model, tolerance, rows, capture)
        return Form(f"{form.name} in CUDA graphs", graphs)

    return Optimizer(model, mode, graphed, lambda: torch.cuda.synchronize(device))


def home(model: Any, device: str) -> str:
    """Where the inputs of our own predict_fn belong: where the model's tensors are.

    A model that could not be moved stays where model_fn put it.
    """
    import torch  # noqa: PLC0415 - imported by now

    if device == "cpu" or not isinstance(model, torch.nn.Module):
        return device
    held = [*model.parameters(), *model.buffers()]
    return str(held[0].device) if held else device


def transfers(device: str) -> Transfers | None:
    """Overlapped copies to a GPU that have been tried; None: there are none."""
    if not device.startswith("cuda"):
        return None
    try:
        made = Transfers(CudaCopies(device))
    except Exception as error:  # noqa: BLE001 - plain copies go on working
        log.warning("copies to the GPU are synchronous: %s", str(error).split("\n", 1)[0])
        return None
    return made if made.proved() else None


def gpu_memory(device: str) -> tuple[int, int]:
    """Bytes that tensors hold, and bytes that torch's allocator holds, of a GPU."""
    import torch  # noqa: PLC0415 - imported by now

    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
