"""A digit in the terminal, and as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHADES = " ░▒▓█"
ASCII_SHADES = " .:*#"
BAR_WIDTH = 40


def in_terminal(image: NDArray[np.uint8], *, unicode: bool) -> str:
    """The image ``[28, 28]`` as text: two characters a pixel, its empty margin cut off."""
    shades = SHADES if unicode else ASCII_SHADES
    rows = np.flatnonzero(image.max(axis=1) > 31)
    columns = np.flatnonzero(image.max(axis=0) > 31)
    if rows.size == 0:
        return "(an empty image)"
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    levels = (cut.astype(int) * len(shades)) // 256
    return "\n".join("    " + "".join(2 * shades[level] for level in row) for row in levels)


def write_png(image: NDArray[np.uint8], path: Path) -> None:
    """The image as a greyscale PNG of 28 x 28 pixels: the very bytes ``/invocations`` takes."""
    Image.fromarray(image).save(path)


def bars(probabilities: Sequence[float], *, unicode: bool) -> str:
    """One line a digit: its probability as a bar and as a number."""
    block = "█" if unicode else "#"
    return "\n".join(
        f"    {digit}  {block * round(BAR_WIDTH * p):<{BAR_WIDTH}} {100 * p:6.2f} %"
        for digit, p in enumerate(probabilities)
    )
