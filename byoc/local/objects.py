"""S3, ECR, STS, IAM and CloudWatch Logs: moto's, with buckets and objects kept on the disk.

moto holds objects in memory. So whatever is put or deleted is written below ``objects/`` as well,
before the client is answered, and read again when the endpoint starts: a folder a bucket, a file
an object (its name quoted), and beside it, in ``.NAME.json``, its metadata, tags, storage class and
time. Versions are not kept: of each object there is what was put last.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from byoc.local import kept_repositories, roles
from byoc.local.arns import ACCOUNT, partition
from byoc.local.faults import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CHUNK_BYTES = 8 * 2**20


class Objects:
    """moto as a WSGI application.

    Loaded by `load`, in a thread of its own when the endpoint starts, as importing it takes about
    a second; a request before that waits.
    """

    def __init__(self, folder: Path, region: str) -> None:
        self._folder, self._region = folder, region
        self._disk = _Disk(folder)
        self._application: Any = None
        self._backend: Any = None
        self._failure: Exception | None = None
        self._loaded = threading.Event()

    def load(self) -> None:
        """Import moto, and read what is on the disk into it."""
        try:
            os.environ.setdefault("MOTO_ACCOUNT_ID", ACCOUNT)
            from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 - heavy
                DomainDispatcherApplication,
                create_backend_app,
            )
            from moto.s3.models import S3Backend, s3_backends  # noqa: PLC0415 - heavy

            self._backend = s3_backends[ACCOUNT][partition(self._region)]
            self._read()
            _keep(S3Backend, self._backend, self._disk)
            roles.prepare(self._region)
            kept_repositories.prepare(self._folder.with_name("repositories.json"))
            self._application = DomainDispatcherApplication(create_backend_app)
        except Exception as error:  # noqa: BLE001 - told to whoever asks
            self._failure = error
        finally:
            self._loaded.set()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer a request.

        Raises:
            AwsError: An object cannot be written to the disk.
        """
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure
        # moto wants the path as it arrived; in the other one, %25 has become % already.
        environ["RAW_URI"] = environ["REQUEST_URI"]
        told: list[Any] = []
        changed = self._disk.begin()
        answer: Iterable[bytes] = self._application(environ, lambda *head: told.append(head))
        # moto completes an object, its metadata for one, after it has put it: what is written is
        # what stands when the request has been dealt with, and only then is the client answered.
        try:
            while changed:
                (bucket, name), key = changed.popitem()
                tags = self._backend.tagger.get_tag_dict_for_resource(key.arn)
                self._disk.put(bucket, key, tags, partial(self._is_current, bucket, name, key))
        except OSError as error:
            self._again(bucket, name)
            raise AwsError(
                "InternalFailure", f"{name} cannot be stored: {error.strerror}", 500
            ) from error
        start_response(*told[-1])
        return answer

    def _is_current(self, bucket: str, name: str, key: Any) -> bool:
        kept = self._backend.buckets.get(bucket)
        return kept is not None and kept.keys.get(name) is key

    def _again(self, bucket: str, name: str) -> None:
        """Have moto say what the disk says: an object could not be written."""
        backend = self._backend
        facts = self._disk.facts(bucket, name)
        if facts is None:
            type(backend).delete_object(backend, bucket, name)
        else:
            self._load(facts)

    def _read(self) -> None:
        for bucket in sorted(self._folder.iterdir()):
            if not (bucket / ".bucket.json").is_file():
                continue  # the endpoint was killed while it made the bucket
            facts = json.loads((bucket / ".bucket.json").read_text())
            self._backend.create_bucket(facts["name"], facts["region"])
            for beside in sorted(bucket.glob(".*.json")):
                if beside.name == ".bucket.json":
                    continue
                facts = json.loads(beside.read_text())
                if (bucket / facts["file"]).is_file():
                    self._load(facts)

    def _load(self, facts: dict[str, Any]) -> None:
        backend: Any = self._backend
        path = self._folder / quote(facts["bucket"], safe="") / facts["file"]
        put = type(backend).put_object
        key = put(backend, facts["bucket"], facts["name"], b"", facts.get("storage"), facts["etag"])
        _fill(key, path)
        key.set_metadata(facts["metadata"], replace=True)
        key.last_modified = _time(facts.get("modified"), path)
        tag = type(backend).put_object_tagging
        tag(backend, key, facts.get("tags", {}))


class _Disk:
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
        folder = self._folder / quote(name, safe="")
        folder.mkdir(exist_ok=True)
        _write(folder / ".bucket.json", json.dumps({"name": name, "region": region}).encode())

    def no_bucket(self, name: str) -> None:
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


def _fill(key: Any, path: Path) -> None:
    with path.open("rb") as source:
        buffer = key._value_buffer  # noqa: SLF001 - `value` would be all of it in memory
        buffer.seek(0)
        buffer.truncate()
        shutil.copyfileobj(source, buffer, _CHUNK_BYTES)
    key.contentsize = path.stat().st_size


def _time(told: str | None, path: Path) -> dt.datetime:
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


def _keep(kind: Any, backend: Any, disk: _Disk) -> None:
    """Have every change of moto's buckets and objects written to the disk."""
    originals = {
        name: getattr(kind, name)
        for name in (
            *("create_bucket", "delete_bucket", "put_object", "delete_object"),
            *("put_object_tagging", "delete_object_tagging"),
        )
    }

    def create_bucket(bucket_name: str, region_name: str, *rest: Any, **more: Any) -> Any:
        bucket = originals["create_bucket"](backend, bucket_name, region_name, *rest, **more)
        disk.bucket(bucket_name, region_name)
        return bucket

    def delete_bucket(bucket_name: str, *rest: Any, **more: Any) -> Any:
        bucket = originals["delete_bucket"](backend, bucket_name, *rest, **more)
        disk.no_bucket(bucket_name)
        return bucket

    def put_object(bucket_name: str, *rest: Any, **more: Any) -> Any:
        key = originals["put_object"](backend, bucket_name, *rest, **more)
        disk.changed(bucket_name, key)
        return key

    def delete_object(bucket_name: str, key_name: str, *rest: Any, **more: Any) -> Any:
        answer = originals["delete_object"](backend, bucket_name, key_name, *rest, **more)
        kept = backend.buckets[bucket_name].keys
        # With versions, a mark of deletion stands in its place.
        disk.delete(bucket_name, key_name, lambda: not hasattr(kept.get(key_name), "contentsize"))
        return answer

    def put_object_tagging(key: Any, *rest: Any, **more: Any) -> Any:
        answer = originals["put_object_tagging"](backend, key, *rest, **more)
        disk.changed(key.bucket_name, key)
        return answer

    def delete_object_tagging(bucket_name: str, key_name: str, *rest: Any, **more: Any) -> Any:
        answer = originals["delete_object_tagging"](backend, bucket_name, key_name, *rest, **more)
        disk.changed(bucket_name, backend.buckets[bucket_name].keys[key_name])
        return answer

    for function in (
        *(create_bucket, delete_bucket, put_object, delete_object),
        *(put_object_tagging, delete_object_tagging),
    ):
        setattr(backend, function.__name__, function)
