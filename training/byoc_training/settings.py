"""The command's own settings, read once from ``BYOC_*`` variables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_training.errors import UsageError
from byoc_training.paths import DEFAULT_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``docker stop`` of a training job sends SIGKILL 120 s after SIGTERM; this leaves 10 s for
#: the failure file and the end of the container.
STOP_GRACE_SECONDS = 110.0


@dataclass(frozen=True)
class Settings:
    """What can be set about ``train`` itself.

    Attributes:
        root: ``BYOC_ROOT``; stands in for ``/opt/ml``, so that jobs run outside a container.
        program: ``BYOC_PROGRAM``; absolute path of the program that runs when the job names
            none. The image sets it to its example.
        stop_grace_seconds: ``BYOC_STOP_GRACE_SECONDS``; how long the program may go on after
            SIGTERM before its process group is killed.
    """

    root: Path = DEFAULT_ROOT
    program: Path | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check every setting.

        Raises:
            UsageError: With all problems in one line.
        """
        problems: list[str] = []
        root = Path(environ.get("BYOC_ROOT") or DEFAULT_ROOT)
        if root.exists() and not root.is_dir():
            problems.append(f"BYOC_ROOT={root} is not a directory")
        program_text = environ.get("BYOC_PROGRAM")
        program = Path(program_text) if program_text else None
        if program is not None and not program.is_absolute():
            problems.append(f"BYOC_PROGRAM={program} is not an absolute path")
        grace_text = environ.get("BYOC_STOP_GRACE_SECONDS") or str(STOP_GRACE_SECONDS)
        try:
            grace = float(grace_text)
        except ValueError:
            grace = math.nan
        if not 0 <= grace < math.inf:
            problems.append(
                f"BYOC_STOP_GRACE_SECONDS={grace_text!r} is not a number of seconds from 0 up"
            )
        if problems:
            raise UsageError("; ".join(problems))
        return cls(root.absolute(), program, grace)
