"""Other forms of a model that may answer faster, and what each value of BYOC_OPTIMIZE tries."""

from __future__ import annotations

import copy
import io
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_serving.fused import fuse, trace

if TYPE_CHECKING:
    from collections.abc import Callable

#: A scripted model with more bytes of weights is not copied through its file format.
RELOAD_BYTES = 256 << 20


@dataclass(frozen=True)
class Form:
    """One way to ask the model: ``forward`` takes what the model takes."""

    name: str
    forward: Callable[[Any], Any]


def _scripted(model: Any) -> Any:
    import torch  # noqa: PLC0415 - imported by now

    # Scripting keeps what depends on the data; tracing would bake in one way through it.
    script: Any = torch.jit.script
    return model if isinstance(model, torch.jit.ScriptModule) else script(model)


def _channels_last(model: Any) -> Any:
    """A copy with its convolutions' weights channels-last; the other weights are shared."""
    import torch  # noqa: PLC0415 - imported by now

    tensors = [*model.parameters(), *model.buffers()]
    if not any(tensor.dim() == 4 for tensor in tensors):
        raise ValueError("no two-dimensional convolution in it")
    if isinstance(model, torch.jit.ScriptModule):
        return _reloaded(model, tensors).to(memory_format=torch.channels_last)
    shared = {id(tensor): tensor for tensor in tensors if tensor.dim() != 4}
    return copy.deepcopy(model, shared).to(memory_format=torch.channels_last)


def _reloaded(model: Any, tensors: list[Any]) -> Any:
    """An independent copy of a scripted module, through its file format.

    Converting changes a module's tensors in place, and a deep copy may share the original's.
    """
    import torch  # noqa: PLC0415 - imported by now

    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > RELOAD_BYTES:
        raise ValueError(f"a second copy would take {size >> 20} MiB")
    buffer = io.BytesIO()
    save: Any = torch.jit.save
    save(model, buffer)
    buffer.seek(0)
    load: Any = torch.jit.load
    return load(buffer).eval()


def _frozen(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    freeze: Any = torch.jit.freeze
    return Form("frozen", freeze(_scripted(model)))


def _frozen_channels_last(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    freeze: Any = torch.jit.freeze
    return Form("frozen channels-last", freeze(_scripted(_channels_last(model))))


def _onednn(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    freeze: Any = torch.jit.freeze
    optimize: Any = torch.jit.optimize_for_inference
    return Form("frozen oneDNN", optimize(freeze(_scripted(model))))


def traced(model: Any) -> Callable[[Any], Form]:
    """The maker of the fused form, its graph taken now: call while nobody asks the model."""
    graph_module, failure = None, None
    try:
        graph_module = trace(model)
    except Exception as error:  # noqa: BLE001 - many models cannot be traced
        failure = error

    def fused(_: Any) -> Form:
        if failure is not None:
            raise failure
        return Form("fused oneDNN", fuse(graph_module))

    return fused


def _eager_channels_last(model: Any) -> Form:
    return Form("eager channels-last", _channels_last(model))


def _bf16(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    low = copy.deepcopy(model).to(torch.bfloat16)
    if not isinstance(model, torch.jit.ScriptModule) and any(
        p.dim() == 4 for p in low.parameters()
    ):
        low = low.to(memory_format=torch.channels_last)
    freeze: Any = torch.jit.freeze
    frozen = freeze(_scripted(low))

    def forward(data: Any) -> Any:
        return _float32(frozen(data.to(torch.bfloat16)))

    return Form("bf16", forward)


def _float32(answer: Any) -> Any:
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(answer, torch.Tensor):
        return answer.float() if answer.dtype is torch.bfloat16 else answer
    if isinstance(answer, dict):
        return {name: _float32(value) for name, value in answer.items()}
    if isinstance(answer, (tuple, list)):
        return type(answer)(map(_float32, answer))
    return answer


def _compiled(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    if not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise ValueError("torch.compile needs a C++ compiler (g++) and none is on PATH")
    return Form("compiled", torch.compile(model, dynamic=True, options={"freezing": True}))


def _compiled_for_cuda(model: Any) -> Form:
    import torch  # noqa: PLC0415 - imported by now

    # Without Inductor's own graphs: ours are of fixed buckets, verified, and bounded in memory.
    return Form("compiled", torch.compile(model, dynamic=True))


def _low(model: Any) -> Form:
    """The weights in bfloat16, on a GPU: half the memory again, and its tensor cores."""
    import torch  # noqa: PLC0415 - imported by now

    low = copy.deepcopy(model).to(torch.bfloat16)
    if not isinstance(model, torch.jit.ScriptModule) and any(
        p.dim() == 4 for p in low.parameters()
    ):
        low = low.to(memory_format=torch.channels_last)

    def forward(data: Any) -> Any:
        return _float32(low(data.to(torch.bfloat16) if data.is_floating_point() else data))

    return Form("bf16", forward)


#: On a GPU; each is then captured in CUDA graphs (``cuda_graphs``), as is the model as loaded.
CUDA_MAKERS: dict[str, tuple[Callable[[Any], Form], ...]] = {
    "freeze": (_eager_channels_last,),
    "compile": (_compiled_for_cuda,),
    "bf16": (_low,),
}

#: On the CPU; with ``freeze`` the form of ``traced`` comes first.
MAKERS: dict[str, tuple[Callable[[Any], Form], ...]] = {
    "freeze": (_frozen, _frozen_channels_last, _onednn, _eager_channels_last),
    "compile": (_compiled,),
    "bf16": (_bf16,),
}
