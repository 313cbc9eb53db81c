"""S3, ECR, STS, IAM and CloudWatch Logs: moto's, with buckets and objects kept on the disk.

moto holds objects in memory. So whatever is put or deleted is written below ``objects/`` as well,
before the client is answered, and read again when the endpoint starts: a folder a bucket, a file
an object (its name quoted), and beside it, in ``.NAME.json``, its metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from byoc.local import roles
from byoc.local.arns import ACCOUNT, partition

if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK_BYTES = 8 * 2**20


class Objects:
    """moto as a WSGI application.

    Loaded by `load`, in a thread of its own when the endpoint starts, as importing it takes about
    a second; a request before that waits.
    """

    def __init__(self, folder: Path, region: str) -> None:
        self._folder, self._region = folder, region
        self._application: Any = None
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

            backend = s3_backends[ACCOUNT][partition(self._region)]
            self._read(backend)
            _keep(S3Backend, backend, _Disk(self._folder))
            roles.prepare(self._region)
            self._application = DomainDispatcherApplication(create_backend_app)
        except Exception as error:  # noqa: BLE001 - told to whoever asks
            self._failure = error
        finally:
            self._loaded.set()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer

    def _read(self, backend: Any) -> None:
        for bucket in sorted(self._folder.iterdir()):
            if not (bucket / ".bucket.json").is_file():
                continue  # the endpoint was killed while it made the bucket
            facts = json.loads((bucket / ".bucket.json").read_text())
            backend.create_bucket(facts["name"], facts["region"])
            for beside in sorted(bucket.glob(".*.json")):
                if beside.name == ".bucket.json":
                    continue
                facts = json.loads(beside.read_text())
                path = bucket / facts["file"]
                if not path.is_file():
                    continue
                key = backend.put_object(facts["bucket"], facts["name"], b"", etag=facts["etag"])
                _fill(key, path)
                key.set_metadata(facts["metadata"], replace=True)


class _Disk:
    """The files of buckets and objects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bucket(self, name: str, region: str) -> None:
        folder = self._folder / quote(name, safe="")
        folder.mkdir(exist_ok=True)
        _write(folder / ".bucket.json", json.dumps({"name": name, "region": region}).encode())

    def no_bucket(self, name: str) -> None:
        shutil.rmtree(self._folder / quote(name, safe=""), ignore_errors=True)

    def put(self, bucket: str, key: Any) -> None:
        folder = self._folder / quote(bucket, safe="")
        file = _file(key.name)
        descriptor, part = tempfile.mkstemp(dir=folder, prefix=".part-")
        try:
            with os.fdopen(descriptor, "wb") as target, key.lock:
                buffer = key._value_buffer  # noqa: SLF001 - `value` would be all of it in memory
                buffer.seek(0)
                shutil.copyfileobj(buffer, target, _CHUNK_BYTES)
            Path(part).replace(folder / file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(part).unlink()
            raise
        facts = {
            "bucket": bucket,
            "name": key.name,
            "file": file,
            "etag": key._etag,  # noqa: SLF001 - of several parts: computed otherwise
            "metadata": dict(key.metadata),
        }
        _write(folder / f".{file}.json", json.dumps(facts).encode())

    def delete(self, bucket: str, name: str) -> None:
        folder = self._folder / quote(bucket, safe="")
        for path in (folder / f".{_file(name)}.json", folder / _file(name)):
            path.unlink(missing_ok=True)


def _file(name: str) -> str:
    """A file name for any key: a key has up to 1,024 bytes, a file name 255; some are special."""
    quoted = quote(name, safe="")
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{quoted[:120]}-{digest}"


def _fill(key: Any, path: Path) -> None:
    with path.open("rb") as source:
        buffer = key._value_buffer  # noqa: SLF001 - `value` would be all of it in memory
        buffer.seek(0)
        buffer.truncate()
        shutil.copyfileobj(source, buffer, _CHUNK_BYTES)
    key.contentsize = path.stat().st_size


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _keep(kind: Any, backend: Any, disk: _Disk) -> None:
    """Have every change of moto's buckets and objects written to the disk."""
    originals = {
        name: getattr(kind, name)
        for name in ("create_bucket", "delete_bucket", "put_object", "delete_object")
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
        disk.put(bucket_name, key)
        return key

    def delete_object(bucket_name: str, key_name: str, *rest: Any, **more: Any) -> Any:
        answer = originals["delete_object"](backend, bucket_name, key_name, *rest, **more)
        disk.delete(bucket_name, key_name)
        return answer

    for function in (create_bucket, delete_bucket, put_object, delete_object):
        setattr(backend, function.__name__, function)
