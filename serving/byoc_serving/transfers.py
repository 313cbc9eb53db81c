"""Passes on a GPU whose copies overlap: inputs from pinned memory, outputs back into it.

A pass is launched without waiting for it. Its inputs are gathered into a pinned buffer that is used
again, copied on a stream of their own, and its output is copied back on a third, so that the copy
of the next pass runs beside the compute of this one. Knows nothing of whose fault an error is: a
caller whose pass fails asks again, synchronously, input by input.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: Passes under way at once: one computes, the next one is copied.
DEPTH = 2
#: Inputs of more bytes are copied from where they are.
MAX_PINNED_BYTES = 256 << 20
_MIN_PINNED_BYTES = 64 << 10


class UnfetchableError(Exception):
    """The output is nothing that can be copied asynchronously."""


class Done(Protocol):
    """Something that the device will reach."""

    def synchronize(self) -> None:
        """Wait for it."""


class Copies(Protocol):
    """What moves tensors: CUDA's streams, or a stand-in."""

    def pinned(self, size_bytes: int) -> Any:
        """A ``uint8`` tensor ``[size_bytes]`` that the device can read by itself."""

    def upload(self, host: Any) -> tuple[Any, Done]:
        """Begin a copy to the device; the tensor there, and when ``host`` is free again."""

    def download(self, tensors: list[Any]) -> tuple[list[Any], Done]:
        """Begin copies from the device; the tensors here, and when they are whole."""


class CudaCopies:
    """Copies between this host and one device, each way on a stream of its own."""

    def __init__(self, device: str) -> None:
        import torch  # noqa: PLC0415 - imported by now

        stream: Any = torch.cuda.Stream
        self._device = torch.device(device)
        self._in: Any = stream(self._device)
        self._out: Any = stream(self._device)

    def pinned(self, size_bytes: int) -> Any:
        """Page-locked memory."""
        import torch  # noqa: PLC0415 - imported by now

        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def upload(self, host: Any) -> tuple[Any, Done]:
        """On the inward stream; the compute stream waits for it, the host does not."""
        import torch  # noqa: PLC0415 - imported by now

        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._in):
            data = host.to(self._device, non_blocking=True)
            done = self._in.record_event()
        compute.wait_event(done)
        # Made on one stream, used on another: its memory is not to be given away too early.
        data.record_stream(compute)
        return data, done

    def download(self, tensors: list[Any]) -> tuple[list[Any], Done]:
        """On the outward stream, behind what computes the tensors."""
        import torch  # noqa: PLC0415 - imported by now

        self._out.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._out):
            # torch puts the target of such a copy into pinned memory.
            here = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
            for tensor in tensors:
                if tensor.is_cuda:
                    tensor.record_stream(self._out)
            return here, self._out.record_event()


@dataclass
class _Slot:
    """A pinned buffer and what still reads it."""

    memory: Any = None
    busy: Done | None = field(default=None)


@dataclass(frozen=True)
class Flight:
    """A pass under way."""

    form: Any
    tensors: list[Any]
    done: Done

    def result(self) -> Any:
        """Wait; the output on the host.

        Raises:
            RuntimeError: the device failed; at this pass or at an earlier one.
        """
        self.done.synchronize()
        return _fill(self.form, iter(self.tensors))


class Transfers:
    """Launches passes; in the one thread that owns the model.

    Args:
        copies: what moves the tensors.
    """

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._slots = [_Slot() for _ in range(DEPTH)]
        self._turn = 0

    def launch(self, inputs: list[Any], forward: Callable[[Any], Any]) -> Flight:
        """Begin ``forward`` on ``[n_i, ...]`` tensors of the host, joined along dimension 0.

        Raises:
            UnfetchableError: the output has something other than tensors in it.
            Exception: what the launch itself raises: the model's complaints, out of memory.
        """
        output = forward(self._upload(inputs))
        tensors: list[Any] = []
        form = _take(output, tensors)
        here, done = self._copies.download(tensors)
        return Flight(form, here, done)

    def _upload(self, inputs: list[Any]) -> Any:
        import torch  # noqa: PLC0415 - imported by now

        size = sum(data.numel() * data.element_size() for data in inputs)
        if not size or size > MAX_PINNED_BYTES:
            return self._copies.upload(torch.cat(inputs))[0]
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % len(self._slots)
        if slot.busy is not None:
            slot.busy.synchronize()
            slot.busy = None
        if slot.memory is None or len(slot.memory) < size:
            slot.memory = self._copies.pinned(max(_MIN_PINNED_BYTES, 1 << (size - 1).bit_length()))
        first = inputs[0]
        host = slot.memory[:size].view(first.dtype)
        host = host.view(sum(len(data) for data in inputs), *first.shape[1:])
        torch.cat(inputs, out=host)
        data, slot.busy = self._copies.upload(host)
        return data

    def proved(self) -> bool:
        """Whether tensors come back as they went; a warning says when not."""
        import torch  # noqa: PLC0415 - imported by now

        try:
            for rows in (1, 3, 5):
                sent = [torch.rand(rows, 7), torch.rand(1, 7)]
                came = self.launch(sent, lambda data: {"twice": data * 2}).result()["twice"]
                if not torch.equal(came, torch.cat(sent) * 2):
                    raise ValueError("a test tensor came back with other values")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - plain copies go on working
            log.warning("copies to the GPU are synchronous: %s", str(error).split("\n", 1)[0])
            return False
        return True


def _take(output: Any, tensors: list[Any]) -> Any:
    """The output's form with None for each tensor, which goes into ``tensors``."""
    import torch  # noqa: PLC0415 - imported by now

    if isinstance(output, torch.Tensor):
        tensors.append(output)
        return None
    if isinstance(output, dict):
        return {name: _take(value, tensors) for name, value in output.items()}
    if type(output) in (tuple, list):
        return type(output)(_take(value, tensors) for value in output)
    raise UnfetchableError(f"the output has a {type(output).__name__} in it")


def _fill(form: Any, tensors: Any) -> Any:
    if form is None:
        return next(tensors)
    if isinstance(form, dict):
        return {name: _fill(value, tensors) for name, value in form.items()}
    return type(form)(_fill(value, tensors) for value in form)
