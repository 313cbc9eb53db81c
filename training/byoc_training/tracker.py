"""Metrics of a training, told once and kept in every place where they are looked for.

::

    from byoc_training.tracker import Tracker

    with Tracker(step_name="epoch") as tracker:
        for epoch in range(1, epochs + 1):
            ...
            tracker.log({"train_loss": loss, "test_accuracy": accuracy}, step=epoch)
        tracker.log_model(model_dir)

Each call prints one line, ``epoch=1; train_loss=0.1234; test_accuracy=0.98;``, which the regular
expressions of `metrics.metric_definitions` read, appends it to ``metrics.jsonl`` in the job's
output, and writes TensorBoard events: into the directory that the job's TensorBoardOutputConfig
names, else into ``tensorboard`` in the output. Where ``MLFLOW_TRACKING_URI`` is set, all of it goes
to that server as well, with the hyperparameters, the job's name and image, from a process of its
own (see `mlflow_link`). Every host's processors, memory and GPUs are sampled into ``system.jsonl``
and TensorBoard, those of rank 0's host into MLflow too.

Rank 0 prints and writes; on the others all calls do nothing. A full disk or a server that is gone
never ends the training: one line says so.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_training import metrics as forms
from byoc_training.places import Places, say, tensorboard_folder
from byoc_training.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from byoc_training.mlflow_link import MlflowLink


class Tracker:
    """Keeps the metrics of this program. Use it in a ``with`` block, or call `close`.

    Args:
        step_name: What the steps count, and their name in the line and the file.
        folder: Where the files go; by default the job's output, ``SM_OUTPUT_DATA_DIR``.
        tensorboard: Directory of the events, in place of the job's.

    Raises:
        ValueError: ``step_name`` is no name.
        UsageError: A ``BYOC_*`` setting makes no sense (in a job, `train` has said so before).
    """

    def __init__(
        self,
        step_name: str = "step",
        folder: str | Path | None = None,
        tensorboard: str | Path | None = None,
    ) -> None:
        self._step_name = forms.checked_name(step_name)
        self._settings = Settings.from_environ(os.environ)
        output = Path(folder or os.environ.get("SM_OUTPUT_DATA_DIR") or "/opt/ml/output/data")
        events = Path(tensorboard) if tensorboard else tensorboard_folder(output)
        self._pid = os.getpid()
        self._closed = False
        self._writes = _rank() == 0
        self._begun = False
        self._mlflow = _link() if self._writes else None
        self._places = Places(output / "metrics.jsonl", step_name, events, self._mlflow)
        self._system: _System | None = None
        if self._settings.system_metrics_seconds > 0 and _local_rank() == 0:
            seconds = self._settings.system_metrics_seconds
            self._system = _System(output, events, self._mlflow, seconds)
        atexit.register(self.close, "FAILED")

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Tell the metrics of a step.

        When a program goes on from a checkpoint, steps come a second time: the first call of a
        program takes out what an earlier one has told of its step and those after it. MLflow
        cannot do that, it keeps both.

        Args:
            metrics: Numbers, or what ``float`` takes, by name: letters, digits, ``_``, ``-``, ``.``
                and ``/``.
            step: From 0.

        Raises:
            ValueError: The step is negative, or a name is none.
            TypeError: A value is no number.
        """
        if not self._active():
            return
        if step < 0:
            raise ValueError(f"step is {step}; expected 0 or more")
        for name in (self._step_name, "time"):
            if name in metrics:
                raise ValueError(f"{name!r} cannot be a metric: every record has it already")
        values = {forms.checked_name(k): forms.number(k, v) for k, v in metrics.items()}
        if not self._begun:
            self._begun = True
            self._places.begin_at(step)
        print(forms.line(self._step_name, step, values), flush=True)
        self._places.write(int(step), values, time.time())

    def history(self) -> list[dict[str, Any]]:
        """All that has been told, a dict a step: what ``metrics.jsonl`` holds.

        Goes into a checkpoint as it is; empty on other ranks than 0, and before the first `log`.
        """
        return self._places.records() if self._active() and self._begun else []

    def restore(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Take over what a checkpoint says of earlier steps; on a new host the files are empty.

        Nothing is printed, and MLflow is not told again.

        Args:
            history: As `history` gave it.
        """
        if self._active():
            self._begun = True
            self._places.replace(history)

    def log_model(self, folder: str | Path, name: str = "model") -> None:
        """Give the files of a folder to the MLflow run, if there is one; returns at once.

        Args:
            folder: What it holds must stay until `close`.
            name: Their directory among the run's artefacts.
        """
        if self._active() and self._mlflow is not None:
            self._mlflow.send("model", folder=str(Path(folder).absolute()), name=name)

    def close(self, status: str = "FINISHED") -> None:
        """Sample the system a last time, and wait until MLflow has everything.

        A program that ends without it has failed, as far as MLflow is told.

        Args:
            status: MLflow's word for the end: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._system is not None:
            self._system.close()
        self._places.close()
        if self._mlflow is not None:
            missing = self._mlflow.close(status, self._settings.mlflow_close_seconds)
            if missing:
                say(missing)

    def __enter__(self) -> Tracker:  # noqa: PYI034 - typing.Self came with Python 3.11
        """The tracker itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; after an exception the MLflow run is a failed one."""
        self.close("FINISHED" if kind is None else "FAILED")

    def _active(self) -> bool:
        # Processes that the program forks, as a DataLoader does, have the object too.
        return self._writes and not self._closed and self._pid == os.getpid()


class _System:
    """What the sampler sees goes beside the metrics."""

    def __init__(
        self, output: Path, events: Path, mlflow: MlflowLink | None, seconds: float
    ) -> None:
        from byoc_training.system_metrics import Sampler  # noqa: PLC0415 - on one rank a host

        host = os.environ.get("SM_CURRENT_HOST") or "algo-1"
        several = len(json.loads(os.environ.get("SM_HOSTS") or "[]")) > 1
        # The platform puts all hosts' files into one archive.
        path = output / (f"system-{host}.jsonl" if several else "system.jsonl")
        # A run of its own in TensorBoard: a run has one writer.
        self._places = Places(path, "seconds", events / host, mlflow, prefix="system/")
        self._more = {"host": host} if several else {}
        self._zero = time.time()
        for last in self._places.records()[-1:]:
            # A program that is started again goes on counting.
            self._zero = float(last.get("time", self._zero)) - float(last["seconds"])
        self._sampler = Sampler(self._take, seconds)

    def close(self) -> None:
        self._sampler.close()
        self._places.close()

    def _take(self, values: dict[str, float]) -> None:
        now = time.time()
        self._places.write(round(max(0.0, now - self._zero), 1), values, now, **self._more)


def _link() -> MlflowLink | None:
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    from byoc_training.mlflow_link import MlflowLink, first_message  # noqa: PLC0415 - as asked for

    try:
        return MlflowLink(first_message(os.environ))
    except OSError as error:
        say(f"MLflow's process cannot be started ({error}); the training goes on without it")
        return None


def _rank() -> int:
    """Of all processes of the job, as torchrun or MPI says; else of the host."""
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "SM_CURRENT_HOST_RANK"):
        if os.environ.get(name):
            return int(os.environ[name])
    return 0


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK") or 0)
