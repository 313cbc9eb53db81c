"""The model and its codecs, the same for every peer that lets its user choose them.

Copied beside each peer's program. The codecs are the quick ones (orjson, ``numpy.load``), so that
no peer is measured by the speed of the standard library's JSON.
"""

import copy
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from model import Net

NPY = "application/x-npy"
BATCH = 16
BATCH_WAIT_S = 0.002


def load() -> Any:
    """The network with the shared weights; frozen where the run asks for it."""
    torch.set_num_threads(1)
    model: Any = Net().eval()
    weights = Path(os.environ["BENCH_MODEL"]) / "model.pth"
    model.load_state_dict(torch.load(weights, weights_only=True))
    rows = int(os.environ.get("BENCH_FROZEN", "0"))
    if rows:
        model = _frozen(model, rows)
    with torch.inference_mode():
        for rows in (1, 1, 1, 2, 4, 8, BATCH):
            model(torch.zeros(rows, 1, 28, 28))
    return model


def _frozen(model: Any, rows: int) -> Any:
    """The faster of torch's own two ways, frozen channels-last and oneDNN, at a batch size."""
    example = torch.zeros(rows, 1, 28, 28)
    onednn = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    example = example.to(memory_format=torch.channels_last)
    channels_last = torch.jit.freeze(torch.jit.trace(last, example))
    with torch.inference_mode():
        times = [min(_pass_s(form, rows) for _ in range(40)) for form in (onednn, channels_last)]
    return onednn if times[0] < times[1] else channels_last


def _pass_s(model: Any, rows: int) -> float:
    images = torch.zeros(rows, 1, 28, 28)
    began = time.perf_counter()
    model(images)
    return time.perf_counter() - began


def decode(body: bytes, content_type: str | None) -> Any:
    """A request's images, float32 ``[N, 1, 28, 28]``."""
    if content_type == NPY:
        return np.load(io.BytesIO(body), allow_pickle=False)
    return np.asarray(orjson.loads(body), dtype=np.float32)


def predict(model: Any, images: Any) -> Any:
    """Log-probabilities, float32 ``[N, 10]``."""
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


def encode(output: Any) -> bytes:
    """``[[…]]`` as JSON."""
    return orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)


def predict_batch(model: Any, requests: list[Any]) -> list[Any]:
    """One forward pass for several requests; each gets its own rows back."""
    output = predict(model, np.concatenate(requests))
    ends = np.cumsum([len(images) for images in requests])
    return np.split(output, ends[:-1])
