"""What is known of the loaded model, kept where every process of the server finds it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "description.json"


@dataclass(frozen=True)
class Description:
    """A loaded model.

    Attributes:
        origin: where the handler's functions come from.
        functions: which of them the user has written.
        device: ``cpu`` or ``cuda:0``.
    """

    origin: str = "default functions"
    functions: tuple[str, ...] = ()
    device: str = "cpu"

    def write(self, workspace: Path) -> None:
        """Keep it; whoever reads at the same time finds this one or the one before."""
        part = workspace / f"{_NAME}.{os.getpid()}"
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(workspace / _NAME)

    @classmethod
    def read(cls, workspace: Path) -> Description:
        """What the last process that loaded has kept; the defaults before."""
        try:
            content = json.loads((workspace / _NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        return cls(content["origin"], tuple(content["functions"]), content["device"])
