"""The model and its codecs, the same for every peer that lets its user choose them.

Copied beside each peer's program. The codecs are the quick ones (orjson, ``numpy.load``), so that
no peer is measured by the speed of the standard library's JSON.
"""

import io
import os
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
    """The network with the shared weights; frozen and channels-last where the run asks for it."""
    torch.set_num_threads(1)
    model: Any = Net().eval()
    weights = Path(os.environ["BENCH_MODEL"]) / "model.pth"
    model.load_state_dict(torch.load(weights, weights_only=True))
    if os.environ.get("BENCH_FROZEN") == "1":
        example = torch.zeros(1, 1, 28, 28).to(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
        model = torch.jit.freeze(torch.jit.trace(model, example))
    with torch.inference_mode():
        for rows in (1, 1, 1, 2, 4, 8, BATCH):
            model(torch.zeros(rows, 1, 28, 28))
    return model


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
