"""The ``/opt/ml`` tree of a training job, as the platform writes it (contract section 2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class TrainingLayout:
    """A training job's private root: what stands at ``/opt/ml`` inside the container.

    Attributes:
        root: the folder that is, or is mounted at, ``/opt/ml``.
        hyperparameters: name to text; the platform carries nothing but strings.
        channels: channel name to the folder with its files.
        instance_type: what ``resourceconfig.json`` reports.
    """

    root: Path
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, Path] = field(default_factory=dict)
    instance_type: str = "local"

    @property
    def model(self) -> Path:
        """Becomes ``model.tar.gz``."""
        return self.root / "model"

    @property
    def output_data(self) -> Path:
        """Becomes ``output.tar.gz``."""
        return self.root / "output" / "data"

    @property
    def failure(self) -> str:
        """The reason the program gave for its failure, or an empty string."""
        path = self.root / "output" / "failure"
        return path.read_text("utf-8", "replace").strip() if path.is_file() else ""

    def create(self) -> None:
        """Make the folders and the three documented files of ``input/config``."""
        config = self.root / "input" / "config"
        for folder in (config, self.root / "input" / "data", self.model, self.output_data):
            folder.mkdir(parents=True, exist_ok=True)
        self._write(config / "hyperparameters.json", dict(self.hyperparameters))
        self._write(
            config / "inputdataconfig.json",
            {
                name: {
                    "TrainingInputMode": "File",
                    "S3DistributionType": "FullyReplicated",
                    "RecordWrapperType": "None",
                }
                for name in self.channels
            },
        )
        self._write(
            config / "resourceconfig.json",
            {
                "current_host": "algo-1",
                "current_instance_type": self.instance_type,
                "current_group_name": "homogeneousCluster",
                "hosts": ["algo-1"],
                "instance_groups": [
                    {
                        "instance_group_name": "homogeneousCluster",
                        "instance_type": self.instance_type,
                        "hosts": ["algo-1"],
                    }
                ],
                "network_interface_name": "eth0",
            },
        )

    @staticmethod
    def _write(path: Path, content: object) -> None:
        path.write_text(json.dumps(content), "utf-8")
