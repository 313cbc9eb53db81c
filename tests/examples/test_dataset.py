from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from examples.mnist import dataset


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


IMAGES = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([1, 2, 3], dtype=np.uint8)


def write(folder, images=IMAGES, labels=LABELS, *, gzipped=False, dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        file = name.replace("-idx", ".idx") if dotted else name
        if gzipped:
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx(values)))
        else:
            (folder / file).write_bytes(idx(values))


@pytest.mark.parametrize("layout", ["", "MNIST/raw", "raw"])
@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
def test_every_usual_layout_is_found(tmp_path, layout, gzipped, dotted):
    write(tmp_path / layout, gzipped=gzipped, dotted=dotted)
    images, labels = dataset.load(tmp_path, "train")
    assert np.array_equal(images, IMAGES)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no idx file"),
        (b"\x00\x00\x08", "is no idx file"),
        (b"<html>", "is no idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "is no idx file"),  # float values
        (idx(IMAGES)[:-1], "2352 bytes, but 2351 follow"),
        (idx(IMAGES) + b"x", "2352 bytes, but 2353 follow"),
    ],
    ids=["empty", "short", "html", "floats", "truncated", "too-long"],
)
def test_a_damaged_file_is_named_with_what_was_expected(tmp_path, content, message):
    write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(dataset.DatasetError, match=message) as caught:
        dataset.load(tmp_path, "train")
    assert str(path) in str(caught.value)


def test_a_truncated_gzip_file_is_named(tmp_path):
    write(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(dataset.DatasetError, match="is damaged"):
        dataset.load(tmp_path, "train")


def test_as_many_labels_as_images_are_required(tmp_path):
    write(tmp_path, labels=LABELS[:2])
    with pytest.raises(dataset.DatasetError, match=r"images \[3, 28, 28\] and labels \[2\]"):
        dataset.load(tmp_path, "train")


def test_a_gzip_file_damaged_in_the_middle_is_named(tmp_path):
    write(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[10] = 0xFF  # the first block of a kind that does not exist
    path.write_bytes(data)
    with pytest.raises(dataset.DatasetError, match="is damaged"):
        dataset.load(tmp_path, "train")


def test_labels_that_are_no_digits_are_named(tmp_path):
    write(tmp_path, labels=np.array([1, 2, 26], dtype=np.uint8))
    with pytest.raises(dataset.DatasetError, match="has the label 26; expected digits"):
        dataset.load(tmp_path, "train")
