"""A writable directory of this server's own, and the end of those that killed servers left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from byoc_serving.errors import StartError

PREFIX = "byoc-serve-"
#: Held, by lock, as long as a process of the server lives.
_LOCK = "alive.lock"
#: A directory this young may be without its lock for a moment.
_SETTLED_S = 10.0
#: One without a lock file after this long has nobody who would miss it.
_FOREIGN_S = 3600.0


class Workspace:
    """A temporary directory under a lock.

    The lock goes with the last process that has the file open: the workers inherit it, so nothing
    that still runs loses its directory, and after ``kill -9`` of all the next server may tidy up.

    Raises:
        StartError: there is no writable directory.
    """

    def __init__(self) -> None:
        try:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(
                f"no writable directory for temporary files: {error}; make /tmp writable or set "
                "TMPDIR"
            ) from None

    def remove(self) -> None:
        """Remove the directory and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def sweep() -> int:
    """Remove what servers of this user left behind when they were killed; how many."""
    removed = 0
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed


def _abandoned(folder: Path) -> bool:
    try:
        status = folder.lstat()
        age_s = time.time() - status.st_mtime
        if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.getuid():
            return False
        if age_s < _SETTLED_S:
            return False
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return age_s > _FOREIGN_S
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)
    except OSError:
        return False
    return True
