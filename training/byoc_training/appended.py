"""A file that grows by whole records: one write each, none of it where there is no room."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class AppendedFile:
    """Opened, with the directories above it, when the first record comes.

    What has been written is with the kernel, so a process that is killed loses nothing; only a
    machine that fails may lose the last records.

    Args:
        path: The file; what is in it stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, record: bytes) -> None:
        """Write a record, or nothing of it.

        Raises:
            OSError: There is no room, or the file cannot be written.
        """
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o644)
        before = os.fstat(self._descriptor).st_size
        written = os.write(self._descriptor, record)
        if written < len(record):
            # A part of a record would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Let go of the file; another record would open it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
