"""Pictures of a training run."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def training_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Losses and accuracy by epoch, as a PNG."""
    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(8, 4), layout="constrained")
    left = figure.add_subplot()
    left.plot(epochs, [entry["train_loss"] for entry in history], "o-", label="training loss")
    left.plot(epochs, [entry["test_loss"] for entry in history], "o-", label="test loss")
    left.set(xlabel="epoch", ylabel="average loss", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = left.twinx()
    accuracy = [100 * entry["test_accuracy"] for entry in history]
    right.plot(epochs, accuracy, "s--", color="tab:green", label="test accuracy")
    right.set(ylabel="accuracy in %")
    left.legend(handles=left.lines + right.lines, loc="center right")
    left.set_title(f"After epoch {epochs[-1]:.0f}: {accuracy[-1]:.2f} % of the test digits right")
    figure.savefig(path, dpi=120)
