from __future__ import annotations

import numpy as np
from PIL import Image

from byoc_training import plots


def colours(path) -> int:
    """How many: a picture with nothing in it has few."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def test_a_curve_of_any_losses_and_accuracies(tmp_path):
    history = [
        {"step": 1, "loss": 1.0, "valid_accuracy": 0.5, "time": 1.0},
        {"step": 2, "loss": float("nan"), "time": 2.0},
        {"step": 3, "loss": 0.1, "valid_loss": 0.2, "valid_accuracy": 0.9, "time": 3.0},
    ]
    plots.training_curve(history, tmp_path / "curve.png")
    assert colours(tmp_path / "curve.png") > 100


def test_a_curve_of_no_accuracy_and_one_step(tmp_path):
    plots.training_curve([{"epoch": 1, "loss": 1.0}], tmp_path / "curve.png")
    assert colours(tmp_path / "curve.png") > 50


def test_a_confusion_matrix_shows_what_was_taken_for_what(tmp_path):
    counts = np.eye(3) * 50
    plots.confusion_matrix(counts.tolist(), tmp_path / "right.png", ["cat", "dog", "cow"])
    plots.confusion_matrix((50 - counts).tolist(), tmp_path / "wrong.png")
    right, wrong = ((tmp_path / name).read_bytes() for name in ("right.png", "wrong.png"))
    assert right != wrong
    assert colours(tmp_path / "right.png") > 100


def test_a_confusion_matrix_with_an_empty_row_and_many_classes(tmp_path):
    counts = np.zeros((100, 100))
    counts[0, 1] = 3
    plots.confusion_matrix(counts.tolist(), tmp_path / "many.png")
    assert colours(tmp_path / "many.png") > 50
