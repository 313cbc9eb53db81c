"""Overlapped passes: the logic, with a stand-in whose copies wait until they are waited for."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from byoc_serving.predictor import CHECKS, Predictor
from byoc_serving.transfers import DEPTH, Flight, Transfers, UnfetchableError


class Later:
    """Something that happens when it is waited for, if not before."""

    def __init__(self, copies: LateCopies, action: Any) -> None:
        self._copies = copies
        self._action = action

    def synchronize(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class LateCopies:
    """Downloads reach the host when they are waited for; a lost device says so only then."""

    def __init__(self) -> None:
        self.buffers: list[int] = []
        self.under_way = 0
        self.most = 0
        self.reads: list[torch.Tensor] = []
        self.lost = False

    def pinned(self, size_bytes: int) -> torch.Tensor:
        self.buffers.append(size_bytes)
        return torch.full((size_bytes,), 255, dtype=torch.uint8)

    def upload(self, host: torch.Tensor) -> tuple[torch.Tensor, Later]:
        return host.clone(), Later(self, lambda: self.reads.append(host))

    def download(self, tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], Later]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        here = [torch.full_like(tensor, -1) for tensor in tensors]

        def arrive() -> None:
            self.under_way -= 1
            if self.lost:
                raise RuntimeError("CUDA error: device-side assert triggered")
            for target, tensor in zip(here, tensors, strict=True):
                target.copy_(tensor)

        return here, Later(self, arrive)


def double(data: torch.Tensor) -> torch.Tensor:
    return data * 2


def settled(copies: LateCopies, forward: Any, rows: int = 4) -> Predictor:
    """A predictor whose joined answers have been compared."""
    predictor = Predictor(forward, rows, Transfers(copies), coarse=True)
    for _ in range(CHECKS):
        predictor.predict([torch.ones(1, 3), torch.ones(1, 3)])
    return predictor


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16]
)
def test_inputs_are_joined_in_one_pinned_buffer(dtype):
    copies = LateCopies()
    transfers = Transfers(copies)
    inputs = [torch.ones(2, 3).to(dtype), torch.zeros(5, 3).to(dtype)]
    for _ in range(6):
        answer = transfers.launch(inputs, lambda data: data).result()
        assert torch.equal(answer, torch.cat(inputs))
        assert answer.dtype == dtype
    assert len(copies.buffers) == DEPTH


def test_buffer_is_written_again_only_after_it_was_read():
    copies = LateCopies()
    transfers = Transfers(copies)
    for number in range(DEPTH + 1):
        assert len(copies.reads) == max(0, number - DEPTH)
        transfers.launch([torch.ones(1, 2)], double)
    assert len(copies.reads) == 1


def test_buffer_grows_with_what_it_has_to_hold():
    copies = LateCopies()
    transfers = Transfers(copies)
    for rows in (1, 1, 100_000, 100_000, 1):
        data = torch.randn(rows, 2)
        assert torch.equal(transfers.launch([data], double).result(), data * 2)
    assert copies.buffers[-1] >= 800_000
    assert len(copies.buffers) == 2 * DEPTH


def test_form_of_the_output_is_kept():
    forward = {"pair": lambda data: (data, [data + 1]), "dict": lambda data: {"a": data}}
    data = torch.zeros(1, 2)
    transfers = Transfers(LateCopies())
    pair = transfers.launch([data], forward["pair"]).result()
    assert isinstance(pair, tuple)
    assert pair[1][0].tolist() == [[1.0, 1.0]]
    assert transfers.launch([data], forward["dict"]).result()["a"].tolist() == [[0.0, 0.0]]
    with pytest.raises(UnfetchableError, match="str"):
        transfers.launch([data], lambda _: ["word"])


def test_groups_overlap_and_every_answer_is_its_own():
    copies = LateCopies()
    predictor = settled(copies, double)
    copies.most = 0
    inputs = [torch.full((2, 3), float(number)) for number in range(9)]
    outputs = predictor.predict(inputs)
    assert [torch.equal(o, i * 2) for i, o in zip(inputs, outputs, strict=True)] == [True] * 9
    assert copies.most == DEPTH
    assert copies.under_way == 0


def test_guilty_request_fails_alone_among_overlapping_groups():
    def forward(data: torch.Tensor) -> torch.Tensor:
        if (data == 7).any():
            raise ValueError("seven")
        return data * 2

    predictor = settled(LateCopies(), forward)
    inputs = [torch.full((1, 3), float(number)) for number in range(12)]
    outputs = predictor.predict(inputs)
    assert [n for n, o in enumerate(outputs) if isinstance(o, ValueError)] == [7]
    assert all(torch.equal(outputs[n], inputs[n] * 2) for n in range(12) if n != 7)


def test_batch_too_large_for_the_memory_is_halved():
    def forward(data: torch.Tensor) -> torch.Tensor:
        if len(data) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return data * 2

    predictor = settled(LateCopies(), forward)
    inputs = [torch.full((1, 3), float(number)) for number in range(8)]
    assert [o.tolist() for o in predictor.predict(inputs)] == [(i * 2).tolist() for i in inputs]
    assert predictor.rows_limit < 4


def test_error_that_comes_with_the_copy_is_the_groups_own():
    copies = LateCopies()
    predictor = settled(copies, double)
    copies.lost = True
    inputs = [torch.ones(1, 3) for _ in range(8)]
    # Asked again one after the other, which this device still can.
    assert [o.tolist() for o in predictor.predict(inputs)] == [[[2.0] * 3]] * 8


def test_lost_device_is_every_groups_error():
    copies = LateCopies()
    broken = False

    def forward(data: torch.Tensor) -> torch.Tensor:
        if broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return data * 2

    predictor = settled(copies, forward)
    broken = copies.lost = True
    outputs = predictor.predict([torch.ones(1, 3) for _ in range(8)])
    assert all("device-side assert" in str(output) for output in outputs)


def test_output_that_is_no_tensor_turns_overlapping_off(caplog):
    predictor = Predictor(lambda data: data.tolist(), 4, Transfers(LateCopies()))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert predictor.predict([torch.ones(1, 2)]) == [[[1.0, 1.0]]]
    assert caplog.text.count("synchronous") == 1


def test_copies_are_tried_before_they_are_used(caplog, monkeypatch):
    assert Transfers(LateCopies()).proved()
    monkeypatch.setattr(Flight, "result", lambda flight: {"twice": flight.tensors[0]})
    with caplog.at_level(logging.WARNING):
        assert not Transfers(LateCopies()).proved()
    assert caplog.text.count("copies to the GPU are synchronous") == 1
