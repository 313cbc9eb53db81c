"""Where numbers go: a file of JSON lines, TensorBoard events, an MLflow run."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_training.events import EventFile
from byoc_training.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from byoc_training.mlflow_link import MlflowLink


class Places:
    """All places of one series of numbers. A file that cannot be written costs one line.

    Args:
        path: The file of JSON lines.
        key: The name of what counts up in it.
        events: Directory of the TensorBoard run; no other writer has it.
        mlflow: The run, if there is one.
        prefix: Stands before the names in TensorBoard and MLflow.
    """

    def __init__(
        self, path: Path, key: str, events: Path, mlflow: MlflowLink | None, prefix: str = ""
    ) -> None:
        self._name = path.name
        self._key = key
        self._journal = Journal(path, key)
        self._folder = events
        self._events = EventFile(events)
        self._mlflow = mlflow
        self._prefix = prefix
        self._lock = threading.Lock()
        self._troubled: set[str] = set()

    def write(
        self, position: float, values: Mapping[str, float], seconds: float, **more: str
    ) -> None:
        """Add a record.

        Args:
            position: What counts up; its whole part is the step.
            values: By name.
            seconds: When, since 1970.
            more: For the file alone.
        """
        named = {self._prefix + name: value for name, value in values.items()}
        record = {self._key: position, **more, **values, "time": round(seconds, 3)}
        with self._lock:
            with self._trouble(self._name):
                self._journal.append(record)
            with self._trouble("TensorBoard events"):
                self._events.scalars(named, int(position), seconds)
        if self._mlflow is not None:
            self._mlflow.send("metrics", values=named, step=int(position), time=seconds)

    def begin_at(self, position: int) -> None:
        """Records from here on are about to come, perhaps again: those that are there go."""
        with self._lock:
            with self._trouble(self._name):
                self._journal.cut(position)
            self._events = EventFile(self._folder, position)

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Let the files hold these records alone; MLflow has them."""
        first = int(records[0][self._key]) if records else 0
        with self._lock:
            with self._trouble(self._name):
                self._journal.replace(records)
            self._events = EventFile(self._folder, first)
            with self._trouble("TensorBoard events"):
                for record in records:
                    values = {
                        self._prefix + name: value
                        for name, value in record.items()
                        if name not in (self._key, "time") and isinstance(value, int | float)
                    }
                    self._events.scalars(values, int(record[self._key]), record.get("time", 0.0))

    def records(self) -> list[dict[str, Any]]:
        """What the file holds."""
        with self._lock:
            return self._journal.records()

    def close(self) -> None:
        """Let go of the files."""
        self._journal.close()
        self._events.close()

    @contextlib.contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if what not in self._troubled:
                self._troubled.add(what)
                reason = error.strerror or error
                say(f"cannot write {what}: {reason}; the training goes on without it")


def tensorboard_folder(output: Path) -> Path:
    """Where the platform copies from while the job runs, if the job asks for it; else the output.

    ``tensorboardoutputconfig.json`` has been seen with the member LocalPath (observed,
    undocumented); the default path counts as well where it is there. Neither has to be.
    """
    config = Path(os.environ.get("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        named = json.loads((config / "tensorboardoutputconfig.json").read_bytes()).get("LocalPath")
        if named and isinstance(named, str):
            return Path(named)
    default = Path(os.environ.get("SM_OUTPUT_DIR", "/opt/ml/output")) / "tensorboard"
    return default if default.is_dir() else output / "tensorboard"


def say(line: str) -> None:
    """Tell the user what matters about all this."""
    print(f"metrics: {line}", flush=True)
