"""Answer with the log-probabilities of the ten digits: what a user of the inference image writes.

A JSON, CSV or npy body is the normalised tensor itself, ``[N, 1, 28, 28]``; a PNG or JPEG body is
a picture of one digit, white on black. The prediction and its encoding are the server's own.
"""

from pathlib import Path

import numpy as np
import torch
from model import Net, normalize
from PIL import Image

from byoc_serving.codecs import decode


def model_fn(model_dir: str) -> torch.nn.Module:
    """The trained network."""
    model = Net()
    model.load_state_dict(torch.load(Path(model_dir) / "model.pth", weights_only=True))
    return model


def input_fn(body: bytes | str, content_type: str) -> torch.Tensor:
    """The request's digits as float32 ``[N, 1, 28, 28]``."""
    array = decode(body, content_type)
    if content_type.startswith("image/"):
        picture = Image.fromarray(array).convert("L").resize((28, 28))
        return normalize(torch.from_numpy(np.array(picture)).unsqueeze(0))
    return torch.from_numpy(array.reshape(-1, 1, 28, 28))
