"""The files of buckets and objects: what is written before a client is answered.

A folder a bucket, a file an object (its name quoted), and beside it, in ``.NAME.json``, its
metadata, tags, storage class and time.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 8 * 2**20


class ObjectFiles:
    """The files of buckets and objects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._request = threading.local()
        self._lock = threading.Lock()

    def begin(self) -> dict[tuple[str, str], Any]:
        """Note from now on what this thread changes: objects by their bucket and key."""
        changed: dict[tuple[str, str], Any] = {}
        self._request.changed = changed
        return changed

    def changed(self, bucket: str, key: Any) -> None:
        """An object was put, and may be completed until the request ends."""
        self._request.changed[bucket, key.name] = key

    def bucket(self, name: str, region: str) -> None:
        """A bucket was made."""
        folder = self._folder / quote(name, safe="")
        folder.mkdir(exist_ok=True)
        _write(folder / ".bucket.json", json.dumps({"name": name, "region": region}).encode())

    def no_bucket(self, name: str) -> None:
        """A bucket was deleted."""
        shutil.rmtree(self._folder / quote(name, safe=""), ignore_errors=True)

    def put(
        self, bucket: str, key: Any, tags: dict[str, str], is_current: Callable[[], bool]
    ) -> None:
        """Write an object, unless another request has replaced or deleted it meanwhile.

        Raises:
            OSError: It cannot be written; what was there before still is.
        """
        folder = self._folder / quote(bucket, safe="")
        file = _file(key.name)
        descriptor, part = tempfile.mkstemp(dir=folder, prefix=".part-")
        try:
            with os.fdopen(descriptor, "wb") as target:
                whole = _copy(key, target)
            facts = {
                "bucket": bucket,
                "name": key.name,
                "file": file,
                "etag": key._etag,  # noqa: SLF001 - of several parts: computed otherwise
                "metadata": dict(key.metadata),
                "modified": key.last_modified.isoformat(),
                "storage": key.storage_class,
                "tags": tags,
            }
            with self._lock:
                if whole and is_current():
                    Path(part).replace(folder / file)
                    _write(folder / f".{file}.json", json.dumps(facts).encode())
        finally:
            Path(part).unlink(missing_ok=True)

    def facts(self, bucket: str, name: str) -> dict[str, Any] | None:
        """What is kept of an object; None for one that is not there."""
        beside = self._folder / quote(bucket, safe="") / f".{_file(name)}.json"
        if not beside.is_file():
            return None
        found: dict[str, Any] = json.loads(beside.read_text())
        return found

    def delete(self, bucket: str, name: str, is_gone: Callable[[], bool]) -> None:
        """Remove an object, unless another request has put it again meanwhile."""
        self._request.changed.pop((bucket, name), None)
        folder = self._folder / quote(bucket, safe="")
        with self._lock:
            if is_gone():
                for path in (folder / f".{_file(name)}.json", folder / _file(name)):
                    path.unlink(missing_ok=True)


def _file(name: str) -> str:
    """A file name for any key: a key has up to 1,024 bytes, a file name 255; some are special."""
    quoted = quote(name, safe="")
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{quoted[:120]}-{digest}"


def _copy(key: Any, target: BinaryIO) -> bool:
    """Write an object's content; whether all of it was still there."""
    try:
        with key.lock:
            buffer = key._value_buffer  # noqa: SLF001 - `value` would be all of it in memory
            buffer.seek(0)
            shutil.copyfileobj(buffer, target, _CHUNK_BYTES)
    except ValueError:  # closed: the object was replaced or deleted
        return False
    return True


def fill(key: Any, path: Path) -> None:
    """Give one of moto's objects its content."""
    with path.open("rb") as source:
        buffer = key._value_buffer  # noqa: SLF001 - `value` would be all of it in memory
        buffer.seek(0)
        buffer.truncate()
        shutil.copyfileobj(source, buffer, _CHUNK_BYTES)
    key.contentsize = path.stat().st_size


def put_time(told: str | None, path: Path) -> dt.datetime:
    """When an object was put, in moto's form: UTC without saying so."""
    if told is not None:
        return dt.datetime.fromisoformat(told)
    # Kept by a version that did not note it.
    put = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.timezone.utc)
    return put.replace(tzinfo=None)


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
