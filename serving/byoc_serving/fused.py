"""A model's convolutions and linear layers as oneDNN takes them fastest.

Weights are packed once into the library's own layout instead of at each pass, batch normalisation
is folded into the convolution before it, and a ReLU after either becomes a part of it. The model's
graph is taken symbolically (``torch.fx``), which refuses a model whose way depends on its data.

oneDNN is reached through the operators that Inductor generates calls of. They are no public
interface of torch, so whatever fails here only means that this form is not used.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: More bytes of weights than this are not worth a second copy in memory.
MOST_BYTES = 256 << 20
#: Rows that the packed layout of a linear layer is chosen for.
_ROWS = 8


def trace(model: Any) -> Any:
    """The model's graph; call while nobody asks any module of this process.

    ``torch.fx`` puts wrappers into the class of all modules while it traces: a forward in another
    thread would end up in the graph. And the traced forward may leave what it computed in
    attributes of the module, so a copy is traced, which shares the tensors.

    Args:
        model: a ``torch.nn.Module`` in evaluation mode; it stays as it is.

    Raises:
        ValueError: there is too much to pack, or hooks would be left out.
        Exception: whatever torch raises for a model that cannot be traced.
    """
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("a scripted model has no modules that could be replaced")
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):  # noqa: SLF001 - torch tells it nowhere else
        raise ValueError("it has forward hooks, which would be left out")
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > MOST_BYTES:
        raise ValueError(f"a second copy of its weights would take {size >> 20} MiB")
    return torch.fx.symbolic_trace(copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}))


def fuse(graph_module: Any) -> Any:
    """The model with packed layers, scripted and frozen where that is possible.

    Args:
        graph_module: ``trace``'s, of a model in float32 on the CPU; it is changed.

    Raises:
        ValueError: there is nothing to pack.
        Exception: whatever torch raises for layers that cannot be packed.
    """
    import torch  # noqa: PLC0415 - imported by now

    _fold(graph_module)
    _pack(graph_module)
    _loosen(graph_module)
    graph_module.graph.lint()
    graph_module.recompile()
    graph_module.eval()
    freeze: Any = torch.jit.freeze
    script: Any = torch.jit.script
    try:
        return freeze(script(graph_module))
    except Exception:  # noqa: BLE001 - the operators need no script
        return graph_module


def _calls(graph_module: Any) -> Iterator[tuple[Any, Any]]:
    """The nodes that call a module which is called once, with the module."""
    nodes = [node for node in graph_module.graph.nodes if node.op == "call_module"]
    calls = Counter(node.target for node in nodes)
    for node in nodes:
        if calls[node.target] == 1:
            yield node, graph_module.get_submodule(node.target)


def _only_user(node: Any) -> Any | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _bypass(graph_module: Any, node: Any, source: Any) -> None:
    node.replace_all_uses_with(source)
    graph_module.graph.erase_node(node)


def _replace(graph_module: Any, target: str, module: Any) -> None:
    parent, _, name = target.rpartition(".")
    setattr(graph_module.get_submodule(parent), name, module)


def _fold(graph_module: Any) -> None:
    """Batch normalisation into the convolution before it; dropout has no effect here."""
    from torch import nn  # noqa: PLC0415 - imported by now
    from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: PLC0415 - imported by now

    for node, module in list(_calls(graph_module)):
        if isinstance(module, nn.Dropout) and not module.training:
            _bypass(graph_module, node, node.args[0])
        elif isinstance(module, nn.BatchNorm2d) and not module.training:
            before = node.args[0]
            conv: Any = dict(_calls(graph_module)).get(before)
            plain = type(conv) is nn.Conv2d and _only_user(before) is node
            if plain and module.track_running_stats:
                folded: Any = fuse_conv_bn_eval(copy.deepcopy(conv), module)
                _replace(graph_module, before.target, folded)
                _bypass(graph_module, node, before)


def _pack(graph_module: Any) -> None:
    import torch  # noqa: PLC0415 - imported by now
    from torch import nn  # noqa: PLC0415 - imported by now

    packed = 0
    for node, module in list(_calls(graph_module)):
        if type(module) not in {nn.Conv2d, nn.Linear} or module.weight.dtype is not torch.float32:
            continue
        if type(module) is nn.Conv2d and (
            isinstance(module.padding, str) or module.padding_mode != "zeros"
        ):
            continue
        packed += 1
        after = _only_user(node)
        relu = after is not None and _is_relu(graph_module, after)
        make = _packed_conv if type(module) is nn.Conv2d else _packed_linear
        _replace(graph_module, node.target, make(module, "relu" if relu else "none"))
        if relu:
            _bypass(graph_module, after, node)
    if not packed:
        raise ValueError("no convolution or linear layer that could be packed")


def _loosen(graph_module: Any) -> None:
    """What scripting would stumble over; a view of what is now channels-last may need a copy."""
    import torch  # noqa: PLC0415 - imported by now

    for node in graph_module.graph.nodes:
        # Annotations may be names that only the model's own module knows.
        node.type = None
        if node.op == "call_method" and node.target == "view":
            arguments = (*node.args[1:], *node.kwargs.values())
            if not any(isinstance(argument, torch.dtype) for argument in arguments):
                node.target = "reshape"


def _is_relu(graph_module: Any, node: Any) -> bool:
    import torch  # noqa: PLC0415 - imported by now

    if node.op == "call_module":
        return type(graph_module.get_submodule(node.target)) is torch.nn.ReLU
    if node.op == "call_method":
        return node.target in {"relu", "relu_"}
    functions = {torch.relu, torch.relu_, torch.nn.functional.relu, torch.nn.functional.relu_}
    return node.op == "call_function" and node.target in functions


def _packed_conv(conv: Any, attribute: str) -> Any:
    import torch  # noqa: PLC0415 - imported by now

    class PackedConv2d(torch.nn.Module):
        """A convolution with its weights in oneDNN's layout."""

        def __init__(self) -> None:
            super().__init__()
            self.padding, self.stride = list(conv.padding), list(conv.stride)
            self.dilation, self.groups = list(conv.dilation), conv.groups
            self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(  # noqa: SLF001 - see above
                conv.weight.detach().to_mkldnn(),
                self.padding,
                self.stride,
                self.dilation,
                self.groups,
            )
            self.bias = None if conv.bias is None else conv.bias.detach()
            self.attribute = attribute

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """``[N, C, H, W]`` to ``[N, C', H', W']``."""
            answer: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001 - see above
                x,
                self.weight,
                self.bias,
                self.padding,
                self.stride,
                self.dilation,
                self.groups,
                self.attribute,
                [],
                "",
            )
            return answer

    return PackedConv2d()


def _packed_linear(linear: Any, attribute: str) -> Any:
    import torch  # noqa: PLC0415 - imported by now

    class PackedLinear(torch.nn.Module):
        """A linear layer with its weights in oneDNN's layout."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001 - see above
                linear.weight.detach(), _ROWS
            )
            self.bias = None if linear.bias is None else linear.bias.detach()
            self.attribute = attribute

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """``[..., in]`` to ``[..., out]``."""
            answer: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 - see above
                x, self.weight, self.bias, self.attribute, [], ""
            )
            return answer

    return PackedLinear()
