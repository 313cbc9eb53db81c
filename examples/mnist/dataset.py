"""Digits from a channel: the four MNIST idx files, raw or gzipped, flat or in torchvision's layout.

File format, from the MNIST page of its authors: big-endian magic number ``0, 0, type, rank``,
one 32-bit size per dimension, then the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNSIGNED_BYTE = 0x08


class DatasetError(Exception):
    """A file that is missing or damaged: one sentence, with what was expected."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array stored in one idx file."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is damaged ({error}); fetch it again") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTE]) or len(data) < 4 + 4 * data[3]:
        raise DatasetError(f"{path} is no idx file of unsigned bytes (it starts with {data[:4]!r})")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    values = data[4 + 4 * len(shape) :]
    if len(values) != math.prod(shape):
        raise DatasetError(
            f"{path} is truncated or damaged: its header says {shape}, "
            f"that is {math.prod(shape)} bytes, but {len(values)} follow"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def find(folder: Path, name: str) -> Path | None:
    """The file ``name`` below ``folder``, raw or gzipped, in any of the usual layouts."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    places = [folder, folder / "MNIST" / "raw", folder / "raw"]
    return next((p / n for p in places for n in names if (p / n).is_file()), None)


def load(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images ``[N, 28, 28]`` and labels ``[N]`` of ``split``: train or t10k."""
    arrays = []
    for name in (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"):
        path = find(folder, name)
        if path is None:
            there = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
            seen = f"it holds {', '.join(there)}" if there else "it is empty or missing"
            raise DatasetError(f"no {name} or {name}.gz in {folder} ({seen})")
        arrays.append(read_idx(path))
    images, labels = arrays
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(labels):
        raise DatasetError(
            f"{folder}: {split} has images {list(images.shape)} and labels {list(labels.shape)}; "
            "expected [N, 28, 28] and [N] with N > 0"
        )
    if labels.max() > 9:
        raise DatasetError(f"{folder}: {split} has the label {labels.max()}; expected digits")
    return images, labels
