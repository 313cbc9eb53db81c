"""The hosts of a training or processing job: what each of them runs, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Bind:
    """A folder or file of this machine inside the container.

    Attributes:
        source: Here.
        target: There.
        read_only: Whether the program may not write it.
    """

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Host:
    """One container of a job.

    Attributes:
        name: ``algo-1``, or what the cluster calls it.
        root: What is at ``/opt/ml``.
        environment: Its variables, beside the image's.
        entrypoint: In place of the image's.
        arguments: In place of the image's command.
        binds: What is below ``/opt/ml``, or elsewhere, and not in the root.
        instance_type: Such as ``ml.g5.xlarge``; says whether it gets GPUs.
        isolated: No network at all.
    """

    name: str
    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()
    instance_type: str = ""
    isolated: bool = False


@dataclass(frozen=True)
class End:
    """How a host ended.

    Attributes:
        code: Exit code as a shell has it: 137 for SIGKILL; -1 when nobody knows.
        words: What was not the program's doing; empty in the ordinary case.
    """

    code: int
    words: str = ""


class Started(Protocol):
    """A host that has been started."""

    def terminate(self) -> None:
        """SIGTERM to its first process."""

    def kill(self) -> None:
        """SIGKILL to all of its processes."""


class Cluster(Protocol):
    """Where the hosts of one job run."""

    #: Their names, in the order of the request; the rank's order is that of the sorted names.
    names: list[str]
    #: For ``resourceconfig.json``.
    interface: str
    #: Variables that every host needs here: where this endpoint is, from inside.
    variables: Mapping[str, str]

    def start(
        self, host: Host, on_line: Callable[[str], None], on_end: Callable[[End], None]
    ) -> Started:
        """Start a host.

        Args:
            host: What it runs.
            on_line: Takes each line of its output.
            on_end: Called once, when it has ended and all its lines have been told.

        Raises:
            HostError: It cannot be started.
        """

    def close(self) -> None:
        """Remove what is left of all hosts."""


class HostError(Exception):
    """A host cannot be started: one line for ``FailureReason``."""
