"""The training channel: a folder with the four MNIST idx files, from one of three sources."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.demo.errors import DemoError
from examples.mnist import dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Default epochs by source: the embedded digits are few, so they are seen more often.
EPOCHS = {"digits": 12, "mnist": 1}
TEST_DIGITS = 360


def prepare(source: str, folder: Path) -> tuple[Path, str]:
    """A channel folder for ``source`` and one phrase that describes it.

    Args:
        source: ``digits`` (scikit-learn's, embedded), ``mnist`` (torchvision's download) or the
            path of a folder that has the files.
        folder: where made or downloaded files are kept for the next run.
    """
    if source == "digits":
        return _digits(folder / "digits")
    if source == "mnist":
        return _mnist(folder / "mnist")
    given = Path(source).expanduser()
    if not given.is_dir():
        raise DemoError(
            f"DATA={source} is neither digits, mnist nor a folder",
            "give a folder with the four MNIST idx files, gzipped or not",
        )
    return given, f"the MNIST files in {given}"


def read_test_set(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The channel's test images ``[N, 28, 28]`` and labels ``[N]``."""
    try:
        return dataset.load(folder, "t10k")
    except dataset.DatasetError as error:
        raise DemoError(
            str(error), "DATA must be a folder with the four MNIST idx files"
        ) from error


def _digits(folder: Path) -> tuple[Path, str]:
    """scikit-learn's UCI digits, 8x8 with 17 grey levels, brought to MNIST's 28x28.

    As in MNIST, the digit fills the 20x20 in the middle. The split is fixed: 1,437 to train on,
    360 to test with.
    """
    from PIL import Image  # noqa: PLC0415 - loaded only by the source that needs it
    from sklearn.datasets import load_digits  # noqa: PLC0415 - same

    bunch = load_digits()
    images = np.zeros((len(bunch.images), 28, 28), np.uint8)
    for image, small in zip(images, bunch.images, strict=True):
        grey = Image.fromarray((small * (255 / 16)).round().astype(np.uint8))
        image[4:24, 4:24] = np.asarray(grey.resize((20, 20), Image.Resampling.BICUBIC))
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:TEST_DIGITS], order[TEST_DIGITS:]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("t10k", test)):
        write(folder / f"{name}-images-idx3-ubyte.gz", images[part])
        write(folder / f"{name}-labels-idx1-ubyte.gz", bunch.target[part].astype(np.uint8))
    return folder, f"{len(train)} + {len(test)} handwritten digits (UCI, embedded in scikit-learn)"


def _mnist(folder: Path) -> tuple[Path, str]:
    """MNIST, downloaded by torchvision once."""
    from torchvision.datasets import MNIST  # noqa: PLC0415 - slow to import

    try:
        MNIST(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise DemoError(
            f"MNIST cannot be downloaded here ({str(error).splitlines()[0]})",
            "use DATA=digits, which needs no network, or DATA=<folder with the four idx files>",
        ) from error
    return folder, "MNIST: 60,000 + 10,000 digits"


def write(path: Path, values: NDArray[np.uint8]) -> None:
    """Write a gzipped idx file: magic number with type and rank, sizes, values."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 0x08, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))
