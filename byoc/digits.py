"""A digit out of a channel folder, and in the terminal; with the standard library alone."""

from __future__ import annotations

import gzip
import json
import math
import random
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 28
#: MNIST's mean and standard deviation: the model takes normalised tensors.
MEAN, DEVIATION = 0.1307, 0.3081
SHADES, ASCII_SHADES = " ░▒▓█", " .:*#"


@dataclass(frozen=True)
class Digit:
    """A picture of a digit with what it shows.

    Attributes:
        number: Its place in the file.
        label: 0 to 9.
        pixels: 28 rows of 28 bytes, 0 black to 255 white.
    """

    number: int
    label: int
    pixels: tuple[bytes, ...]

    @property
    def tensor(self) -> bytes:
        """JSON of the normalised tensor ``[1, 1, 28, 28]``."""
        rows = [
            [round((value / 255 - MEAN) / DEVIATION, 6) for value in row] for row in self.pixels
        ]
        return json.dumps([[rows]], separators=(",", ":")).encode()

    def text(self, *, unicode: bool) -> str:
        """The picture, two characters a pixel, its empty margin cut off."""
        shades = SHADES if unicode else ASCII_SHADES
        rows = [number for number, row in enumerate(self.pixels) if max(row) > 31]
        if not rows:
            return "(an empty picture)"
        columns = [n for n in range(SIDE) if max(row[n] for row in self.pixels) > 31]
        lines = []
        for row in self.pixels[rows[0] : rows[-1] + 1]:
            cut = row[columns[0] : columns[-1] + 1]
            lines.append("  " + "".join(2 * shades[value * len(shades) // 256] for value in cut))
        return "\n".join(line.rstrip() for line in lines)


def random_digit(folder: Path, seed: int | None = None) -> Digit:
    """One of the folder's digits: of the test set, or of the training set when there is no other.

    Args:
        folder: With MNIST's idx files, gzipped or not, flat or in torchvision's layout.
        seed: Chooses it; any when None.

    Raises:
        SettingsError: There are no such files, or they are damaged.
    """
    for split in ("t10k", "train"):
        images = _find(folder, f"{split}-images-idx3-ubyte")
        labels = _find(folder, f"{split}-labels-idx1-ubyte")
        if images and labels:
            break
    else:
        raise SettingsError(
            f"no digits in {folder}; expected MNIST's files t10k-images-idx3-ubyte and "
            "t10k-labels-idx1-ubyte, gzipped or not"
        )
    shape, pixels = _read(images, 3)
    (count,), answers = _read(labels, 1)
    if shape[1:] != (SIDE, SIDE) or shape[0] != count or count == 0:
        raise SettingsError(
            f"{images} has {shape} and {labels} {count}; expected [N, 28, 28] and N"
        )
    number = random.Random(seed).randrange(count)
    start = number * SIDE * SIDE
    rows = tuple(pixels[start + SIDE * row : start + SIDE * (row + 1)] for row in range(SIDE))
    return Digit(number, answers[number], rows)


def _find(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    names = [name, f"{name}.gz", dotted, f"{dotted}.gz"]
    places = [folder, folder / "MNIST" / "raw", folder / "raw"]
    return next((place / one for place in places for one in names if (place / one).is_file()), None)


def _read(path: Path, rank: int) -> tuple[tuple[int, ...], bytes]:
    """Sizes and values of an idx file (its format: MNIST's page)."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    head = 4 + 4 * rank
    if data[:4] != bytes([0, 0, 8, rank]) or len(data) < head:
        raise SettingsError(f"{path} is no idx file of bytes with {rank} dimensions")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    if len(data) - head != math.prod(shape):
        raise SettingsError(
            f"{path} is damaged: its header says {shape}, {len(data) - head} follow"
        )
    return shape, data[head:]
