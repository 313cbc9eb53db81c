"""Pictures of a training run, for the job's output.

matplotlib is slow to import; that happens when the first picture is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DPI = 120
#: More classes than this get no numbers in their fields.
_MOST_NUMBERS = 20


def training_curve(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Losses and accuracies step by step, as a PNG.

    Args:
        history: As `Tracker.history` gives it; the first member of each record is the step. Names
            that end in ``loss`` are drawn on the left axis, those that end in ``accuracy``
            (fractions) on the right one.
        path: The file.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - see above

    step_name = next(iter(history[0]))
    figure = Figure(figsize=(8, 4))
    # A layout engine would draw everything several times.
    left = figure.add_axes((0.08, 0.13, 0.84, 0.79))
    right = left.twinx()
    for name in dict.fromkeys(name for record in history for name in record):
        steps = [record[step_name] for record in history if name in record]
        values = [record[name] for record in history if name in record]
        label = name.replace("_", " ")
        if name.endswith("loss"):
            left.plot(steps, values, "o-", label=label)
        elif name.endswith("accuracy"):
            percent = [100 * value for value in values]
            right.plot(steps, percent, "s--", color="tab:green", label=label)
            left.set_title(f"After {step_name} {steps[-1]}: {label} {percent[-1]:.2f} %")
    left.set(xlabel=step_name, ylabel="loss", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(ylabel="accuracy in %")
    left.legend(handles=[*left.lines, *right.lines], loc="center right")
    figure.savefig(path, dpi=_DPI)


def confusion_matrix(
    counts: Sequence[Sequence[float]], path: Path, labels: Sequence[str] | None = None
) -> None:
    """What was taken for what, as a PNG.

    Args:
        counts: ``[C, C]``, how many of each true class (row) got each answer (column).
        path: The file.
        labels: Names of the ``C`` classes; by default their numbers.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    names = labels or [str(number) for number in range(len(counts))]
    shares = [[value / max(1, sum(row)) for value in row] for row in counts]
    figure = Figure(figsize=(5.5, 5.5))
    axes = figure.add_axes((0.12, 0.1, 0.85, 0.85))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= _MOST_NUMBERS:
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        for row, values in enumerate(counts):
            for column, value in enumerate(values):
                if value:
                    color = "white" if shares[row][column] > 0.5 else "black"
                    axes.text(
                        column,
                        row,
                        f"{value:.0f}",
                        color=color,
                        fontsize=8,
                        horizontalalignment="center",
                        verticalalignment="center",
                    )
    axes.set(xlabel="answer", ylabel="truth", title="darker: a larger share of the true class")
    # Names may be longer than the margin; finding out means another drawing.
    figure.savefig(path, dpi=_DPI, bbox_inches="tight" if labels else None)
