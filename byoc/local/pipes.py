"""Pipe mode: a channel's content through FIFOs, one an epoch (contract section 2.3)."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import zlib
from typing import TYPE_CHECKING, Any

from byoc.local import s3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

#: Opening a FIFO for writing cannot be waited for and be called off; so it is tried again.
_RETRY_SECONDS = 0.05
#: RecordIO: magic number and length before a record, zeros after it to a multiple of four.
_MAGIC = 0xCED7230A


class Feeder:
    """Writes all parts into ``PATH_0``, then into ``PATH_1``, …, until it is closed.

    Args:
        path: Of the channel, without the epoch.
        parts: Bytes, or a client of S3 and an object.
        wrap: Each part is a RecordIO record.
        unpack: Each part is gzipped.
    """

    def __init__(self, path: Path, parts: Sequence[Any], *, wrap: bool, unpack: bool) -> None:
        self._path, self._parts, self._wrap, self._unpack = path, parts, wrap, unpack
        self._closed = threading.Event()
        #: Why feeding ended early; empty while it goes on.
        self.problem = ""
        self._make(0)
        self._thread = threading.Thread(target=self._feed, name="pipe", daemon=True)

    def start(self) -> None:
        """Begin with the first epoch."""
        self._thread.start()

    def close(self) -> None:
        """Feed no more."""
        self._closed.set()

    def _make(self, epoch: int) -> Path:
        fifo = self._path.with_name(f"{self._path.name}_{epoch}")
        with contextlib.suppress(FileExistsError):
            os.mkfifo(fifo, 0o666)
        return fifo

    def _feed(self) -> None:
        epoch = 0
        while not self._closed.is_set():
            fifo = self._make(epoch)
            descriptor = self._opened(fifo)
            if descriptor is None:
                return
            # The next one is there when this one ends, so that a quick reader finds it.
            self._make(epoch + 1)
            try:
                # The reader may close early: that is its right.
                with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
                    for part in self._content():
                        pipe.write(part)
            except (s3.S3Error, OSError, zlib.error) as error:
                self.problem = str(error)
                return
            epoch += 1

    def _opened(self, fifo: Path) -> int | None:
        while not self._closed.is_set():
            try:
                descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    return None
                self._closed.wait(_RETRY_SECONDS)
                continue
            os.set_blocking(descriptor, True)
            return descriptor
        return None

    def _content(self) -> Iterable[bytes]:
        for part in self._parts:
            chunks: Iterable[bytes] = [part] if isinstance(part, bytes) else s3.stream(*part)
            if self._unpack:
                chunks = _unpacked(chunks)
            if self._wrap:
                record = b"".join(chunks)
                yield struct.pack("<II", _MAGIC, len(record))
                yield record + bytes(-len(record) % 4)
            else:
                yield from chunks


def _unpacked(chunks: Iterable[bytes]) -> Iterable[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        yield unpacker.decompress(chunk)
    yield unpacker.flush()
