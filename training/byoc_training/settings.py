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
#: Amazon's toolkits, and SDK v3, meet on this port; the next one is for `peers`.
MASTER_PORT = 7777
#: As long as Amazon's toolkit waits for the names of the other hosts.
HOSTS_TIMEOUT_SECONDS = 900.0
SYSTEM_METRICS_SECONDS = 10.0
#: Well within the time that a stopped job has.
MLFLOW_CLOSE_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """What can be set about ``train`` itself.

    Attributes:
        root: ``BYOC_ROOT``; stands in for ``/opt/ml``, so that jobs run outside a container.
        program: ``BYOC_PROGRAM``; absolute path of the program that runs when the job names
            none. The image sets it to its example.
        stop_grace_seconds: ``BYOC_STOP_GRACE_SECONDS``; how long the program may go on after
            SIGTERM before its process group is killed.
        hosts_timeout_seconds: ``BYOC_HOSTS_TIMEOUT_SECONDS``; how long a distributed job waits
            for the last of its hosts.
        master_port: ``BYOC_MASTER_PORT``; where torchrun's processes meet on the first host. The
            port after it is taken as well.
        system_metrics_seconds: ``BYOC_SYSTEM_METRICS_SECONDS``; from one sample of processors,
            memory and GPUs to the next, in programs that use `metrics`; 0: none.
        mlflow_close_seconds: ``BYOC_MLFLOW_CLOSE_SECONDS``; how long the end of such a program
            waits at most for an MLflow server, which may still have to take the model.
    """

    root: Path = DEFAULT_ROOT
    program: Path | None = None
    stop_grace_seconds: float = STOP_GRACE_SECONDS
    hosts_timeout_seconds: float = HOSTS_TIMEOUT_SECONDS
    master_port: int = MASTER_PORT
    system_metrics_seconds: float = SYSTEM_METRICS_SECONDS
    mlflow_close_seconds: float = MLFLOW_CLOSE_SECONDS

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
        grace = _seconds(environ, "BYOC_STOP_GRACE_SECONDS", STOP_GRACE_SECONDS, problems)
        wait = _seconds(environ, "BYOC_HOSTS_TIMEOUT_SECONDS", HOSTS_TIMEOUT_SECONDS, problems)
        port_text = environ.get("BYOC_MASTER_PORT") or str(MASTER_PORT)
        port = int(port_text) if port_text.isdecimal() and port_text.isascii() else 0
        if not 0 < port < 65535:
            problems.append(f"BYOC_MASTER_PORT={port_text!r} is not a port from 1 to 65534")
        sample = _seconds(environ, "BYOC_SYSTEM_METRICS_SECONDS", SYSTEM_METRICS_SECONDS, problems)
        close = _seconds(environ, "BYOC_MLFLOW_CLOSE_SECONDS", MLFLOW_CLOSE_SECONDS, problems)
        if problems:
            raise UsageError("; ".join(problems))
        return cls(root.absolute(), program, grace, wait, port, sample, close)


def _seconds(environ: Mapping[str, str], name: str, default: float, problems: list[str]) -> float:
    text = environ.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        problems.append(f"{name}={text!r} is not a number of seconds from 0 up")
    return seconds
