"""A body as it arrives: in memory while it is small, in a file without a name once it is not.

Asynchronous endpoints and transform jobs send up to a gigabyte. The file is unlinked from its
first moment, so it is gone with its last reader, however the process ends; it is read through a
memory map, which the codecs and the kernel page in as they need it.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NoReturn

from byoc_serving.errors import InsufficientStorageError

if TYPE_CHECKING:
    from pathlib import Path

    from byoc_serving.exchange import Body

#: Bytes that are written at a time.
WRITE_BYTES = 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Spooling:
    """Where long bodies go.

    Attributes:
        directory: for the files.
        threshold_bytes: bodies up to this size stay in memory.
    """

    directory: Path
    threshold_bytes: int

    def counted(self, size_bytes: int) -> int:
        """How much of a body of this size is in memory."""
        return min(size_bytes, self.threshold_bytes)


class FileBody(mmap.mmap):
    """A body in a file, as bytes; processes of the same user may open it by its ``address``."""

    _descriptor = -1

    @classmethod
    def of(cls, descriptor: int) -> FileBody:
        """The content of an open file, which may be closed afterwards."""
        body = cls(descriptor, 0, access=mmap.ACCESS_READ)
        body._descriptor = os.dup(descriptor)
        return body

    @property
    def address(self) -> str:
        """Where the file can be opened until ``close``; it has no other name."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Give the file up.

        Raises:
            BufferError: somebody still has a view of the bytes, and keeps them.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()


class Spool:
    """One body.

    Args:
        spooling: where it goes when it is long; None: it stays in memory.
    """

    def __init__(self, spooling: Spooling | None) -> None:
        self._spooling = spooling
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def add(self, chunk: bytes) -> bool:
        """Take a piece; True: ``flush`` has something to do."""
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        if self._file is not None:
            return self._held_bytes >= WRITE_BYTES
        return self._spooling is not None and self._held_bytes > self._spooling.threshold_bytes

    def flush(self) -> None:
        """Write what waits to the file; takes as long as the disk does.

        Raises:
            InsufficientStorageError: the disk is full.
        """
        assert self._spooling is not None  # noqa: S101 - ``add`` has said so
        chunks, self._chunks = self._chunks, []
        self._held_bytes = 0
        try:
            with self._lock:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(  # noqa: SIM115 - lives as long as the body
                        dir=self._spooling.directory, buffering=0
                    )
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(self._file.fileno(), view) :]
        except OSError as error:
            self._raise(error)

    def body(self) -> Body:
        """The whole body.

        Raises:
            InsufficientStorageError: the disk is full.
        """
        if self._file is None:
            return b"".join(self._chunks)
        self.flush()
        try:
            with self._file:
                return FileBody.of(self._file.fileno())
        except OSError as error:
            self._raise(error)

    def close(self) -> None:
        """Nobody wants the body any more."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _raise(self, error: OSError) -> NoReturn:
        if error.errno in _FULL or error.errno == errno.ENOMEM:
            raise InsufficientStorageError(
                f"no room for a long body in the directory for temporary files: {error.strerror}; "
                "send less at once, or give TMPDIR more space"
            ) from None
        raise error
