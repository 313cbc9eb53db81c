"""Where things are below the root, ``/opt/ml`` on the platform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = Path("/opt/ml")


@dataclass(frozen=True)
class Paths:
    """The directories and files of the training contract below one root.

    Source: SageMaker developer guide, "How Amazon SageMaker provides training information"
    and "processes training output".
    """

    root: Path = DEFAULT_ROOT

    @property
    def input(self) -> Path:
        """What the platform gives."""
        return self.root / "input"

    @property
    def config(self) -> Path:
        """The JSON files that describe the job."""
        return self.input / "config"

    @property
    def data(self) -> Path:
        """One directory, or FIFOs, for each channel. Never written to."""
        return self.input / "data"

    @property
    def code(self) -> Path:
        """The user's source."""
        return self.root / "code"

    @property
    def model(self) -> Path:
        """Becomes ``model.tar.gz``."""
        return self.root / "model"

    @property
    def output(self) -> Path:
        """Parent of what is uploaded besides the model."""
        return self.root / "output"

    @property
    def output_data(self) -> Path:
        """Becomes ``output.tar.gz``."""
        return self.output / "data"

    @property
    def output_intermediate(self) -> Path:
        """Artefacts that are uploaded during the run."""
        return self.output / "intermediate"

    @property
    def failure(self) -> Path:
        """Its text becomes the job's FailureReason."""
        return self.output / "failure"

    @property
    def checkpoints(self) -> Path:
        """Mirrored to S3 while the job runs; only there when the job asks for it."""
        return self.root / "checkpoints"

    def channel(self, name: str) -> Path:
        """The directory of a channel; in Pipe mode the prefix of its FIFOs."""
        return self.data / name
