"""S3, ECR, STS, IAM and CloudWatch Logs: moto's, with buckets and objects kept on the disk.

moto holds objects in memory. So whatever is put or deleted is written below ``objects/`` as well,
before the client is answered (`object_files`), and read again when the endpoint starts. Versions
are not kept: of each object there is what was put last.
"""

from __future__ import annotations

import json
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from byoc.local import kept_repositories, roles
from byoc.local.arns import ACCOUNT, partition
from byoc.local.faults import AwsError
from byoc.local.object_files import ObjectFiles, fill, put_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Objects:
    """moto as a WSGI application.

    Loaded by `load`, in a thread of its own when the endpoint starts, as importing it takes about
    a second; a request before that waits.
    """

    def __init__(self, folder: Path, region: str) -> None:
        self._folder, self._region = folder, region
        self._disk = ObjectFiles(folder)
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
        self._wait()
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

    def holds(self, bucket: str, key: str) -> bool:
        """Whether there is an object of this name.

        Raises:
            Exception: moto could not be loaded.
        """
        self._wait()
        found = self._backend.buckets.get(bucket)
        return found is not None and _is_object(found.keys.get(key))

    def holds_below(self, bucket: str, prefix: str) -> bool:
        """Whether there is an object whose name begins so.

        Raises:
            Exception: moto could not be loaded.
        """
        self._wait()
        found = self._backend.buckets.get(bucket)
        # A copy: other requests put and delete meanwhile.
        keys = [] if found is None else [*found.keys]
        return any(key.startswith(prefix) and _is_object(found.keys.get(key)) for key in keys)

    def _wait(self) -> None:
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure

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
        fill(key, path)
        key.set_metadata(facts["metadata"], replace=True)
        key.last_modified = put_time(facts.get("modified"), path)
        tag = type(backend).put_object_tagging
        tag(backend, key, facts.get("tags", {}))


def _is_object(key: Any) -> bool:
    """With versions, a mark of deletion may stand in an object's place."""
    return hasattr(key, "contentsize")


def _keep(kind: Any, backend: Any, disk: ObjectFiles) -> None:
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
        disk.delete(bucket_name, key_name, lambda: not _is_object(kept.get(key_name)))
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
