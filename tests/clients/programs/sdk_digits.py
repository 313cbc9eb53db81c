"""Digits of a channel as the example's network wants them: for the programs of both SDKs' users."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

#: MNIST's mean and standard deviation: what the example's network has been trained on.
MEAN, DEVIATION = 0.1307, 0.3081


def digits(folder: str, count: int) -> tuple[np.ndarray, list[int]]:
    """The first test digits as the network wants them, ``[N, 1, 28, 28]``, and what they are."""
    images, labels = (
        np.frombuffer(gzip.decompress((Path(folder) / f"t10k-{name}-ubyte.gz").read_bytes()), "u1")
        for name in ("images-idx3", "labels-idx1")
    )
    pictures = images[16 : 16 + 784 * count].reshape(count, 1, 28, 28).astype("float32")
    return (pictures / 255 - MEAN) / DEVIATION, labels[8 : 8 + count].tolist()


def right(answers: Any, labels: list[int]) -> float:
    """The share of right answers among rows of ten log-probabilities."""
    rows = np.asarray(answers)
    assert rows.shape == (len(labels), 10), rows.shape
    return float(np.mean(rows.argmax(axis=1) == labels))
