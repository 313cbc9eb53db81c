"""Everything that ends a training job, and the exit code that it ends with.

::

    TrainingError                1   base class; raised only through its children
    ├── UsageError              64   arguments or BYOC_* settings that make no sense
    ├── SourceError             65   the submitted code is damaged or unsafe, or cannot run here
    │   └── ProgramNotFoundError 66  the program that the job names is not there
    ├── UnavailableError        69   something from outside cannot be had: S3 object, package
    ├── StorageError            74   the disk is full or read-only
    ├── PeerError               75   another host of the job failed
    ├── ContractError           78   a file below ``input/config`` is malformed
    ├── Interrupted            143   SIGTERM came before the program was started (130 for SIGINT)
    └── ProgramError             n   the program failed; its own exit code, 128+n for signal n
        └── OutOfMemoryError   137   the kernel killed the program

The codes from 64 to 78 are those of ``sysexits.h``, so that they are not mistaken for a
program's own 1, 2 or 3. The platform only tells zero from non-zero; people and scripts that
read the log see more.
"""

from __future__ import annotations

import os
import signal


class TrainingError(Exception):
    """A job cannot go on. The message is one line: seen, expected, what to do."""

    exit_code: int = 1


class UsageError(TrainingError):
    """The command line or a ``BYOC_*`` setting makes no sense."""

    exit_code = os.EX_USAGE


class SourceError(TrainingError):
    """The submitted code is damaged, unsafe to unpack, or cannot run here."""

    exit_code = os.EX_DATAERR


class ProgramNotFoundError(SourceError):
    """The program that the job names is not in the source."""

    exit_code = os.EX_NOINPUT


class UnavailableError(TrainingError):
    """An S3 object or a package from requirements.txt cannot be had."""

    exit_code = os.EX_UNAVAILABLE


class StorageError(TrainingError):
    """The disk is full, or a directory that must be writable is not."""

    exit_code = os.EX_IOERR


class PeerError(TrainingError):
    """Another host of the job failed; this one has nothing to go on with."""

    exit_code = os.EX_TEMPFAIL


class ContractError(TrainingError):
    """A file below ``input/config`` does not follow the contract."""

    exit_code = os.EX_CONFIG


class Interrupted(TrainingError):  # noqa: N818 - the standard name of what happened
    """The job was told to stop before its program was started."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name} before the program was started")


class ProgramError(TrainingError):
    """The program failed.

    Attributes:
        exit_code: The program's own code, or 128 + n when signal n ended it.
        details: Lines that follow the cause in the failure file.
        missing: Ranks of this host that others waited for in vain, where that is the cause.
        waited: Whether its ranks waited for others in vain.
    """

    def __init__(
        self,
        cause: str,
        exit_code: int,
        details: tuple[str, ...] = (),
        missing: tuple[int, ...] = (),
        *,
        waited: bool = False,
    ) -> None:
        self.exit_code = exit_code
        self.details = details
        self.missing = missing
        self.waited = waited
        super().__init__(cause)


class OutOfMemoryError(ProgramError):
    """The kernel killed the program, most likely or surely for lack of memory."""
