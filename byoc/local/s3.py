"""What jobs fetch from S3 and store there."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: Objects fetched or stored at once.
AT_ONCE = 4


class S3Error(Exception):
    """One line for ``FailureReason``, in AWS's words as far as they are known."""


@dataclass(frozen=True)
class Item:
    """An object, and where it goes.

    Attributes:
        bucket: Its bucket.
        key: Its key.
        name: Path below the channel's folder.
        size: In bytes; -1 when nobody has asked.
    """

    bucket: str
    key: str
    name: str
    size: int = -1


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://BUCKET/KEY``.

    Raises:
        S3Error: It is none.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise S3Error(f"{uri} is no S3 URI; expected s3://BUCKET/KEY")
    return bucket, key


def below(client: Any, uri: str) -> list[Item]:
    """Objects whose key begins with a prefix, in the order of their keys.

    A key below the prefix as a folder is named relative to that; one that only begins with the
    same letters, and the object itself, relative to the last ``/`` before.

    Raises:
        S3Error: There is no bucket or no object.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

    bucket, prefix = split(uri)
    folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    parent = prefix[: prefix.rfind("/") + 1]
    items = []
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", ()):
                key = found["Key"]
                base = folder if key.startswith(folder) else parent
                items.append(Item(bucket, key, key[len(base) :], found["Size"]))
    except ClientError as error:
        said = error.response["Error"].get("Message", str(error))
        region = client.meta.region_name
        raise S3Error(f"{nothing(uri, bucket, region)} Error message from S3: {said}") from error
    except BotoCoreError as error:
        raise S3Error(f"{uri} cannot be listed: {error}") from error
    if not items:
        raise S3Error(nothing(uri, bucket, client.meta.region_name))
    return sorted(items, key=lambda item: item.key)


def in_manifest(client: Any, uri: str) -> list[Item]:
    """Objects that a manifest names: ``[{"prefix": "s3://…/"}, "one", "two", …]``.

    Raises:
        S3Error: There is no manifest, or it is none.
    """
    try:
        listed = json.loads(read(client, uri))
        bucket, prefix = split(listed[0]["prefix"])
        names = [str(name) for name in listed[1:]]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise S3Error(
            f"The manifest {uri} is none: expected a JSON list of an object with a prefix "
            "and of names below it"
        ) from error
    return [Item(bucket, prefix + name, name.lstrip("/")) for name in names]


def read(client: Any, uri: str) -> bytes:
    """An object's content.

    Raises:
        S3Error: There is none.
    """
    bucket, key = split(uri)
    return b"".join(stream(client, Item(bucket, key, key)))


def stream(client: Any, item: Item) -> Iterable[bytes]:
    """An object's content in parts.

    Raises:
        S3Error: There is none.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

    position, begun = 0, -1
    more: dict[str, str] = {}
    while True:
        try:
            answer = client.get_object(Bucket=item.bucket, Key=item.key, **more)
            for chunk in answer["Body"].iter_chunks(1 << 20):
                position += len(chunk)
                yield chunk
        except ClientError as error:  # noqa: PERF203 - tried again
            raise S3Error(_missing(item, error)) from error
        except BotoCoreError as error:
            # Who reads slowly, as a model that learns does, may find the connection cut.
            if position == begun:
                raise S3Error(f"s3://{item.bucket}/{item.key} cannot be read: {error}") from error
            more = {"Range": f"bytes={position}-", "IfMatch": answer["ETag"]} if position else {}
            begun = position
        else:
            return


def fetch(client: Any, items: Iterable[Item], folder: Path, cancelled: Callable[[], bool]) -> None:
    """Bring objects into a folder.

    Args:
        client: Of S3.
        items: What to bring.
        folder: Exists.
        cancelled: Asked before each object; then the rest stays away.

    Raises:
        S3Error: An object is missing, its name leads out of the folder, or the disk is full.
    """
    root = folder.resolve()
    failed = threading.Event()

    def one(item: Item) -> None:
        if failed.is_set() or cancelled():
            return
        try:
            bring(item)
        except BaseException:
            failed.set()  # what has not begun does not
            raise

    def bring(item: Item) -> None:
        # Of the key `d//b` below `d/`, `/b` is left: no path from the machine's root.
        path = (root / item.name.lstrip("/")).resolve()
        if not path.is_relative_to(root):
            raise S3Error(f"the key {item.key} would lie outside of its folder")
        try:
            if item.name.endswith("/") or not item.name:
                path.mkdir(parents=True, exist_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for part in stream(client, item):
                    file.write(part)
        except OSError as error:
            raise S3Error(f"{item.name} cannot be written: {error.strerror or error}") from error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(one, items):
            pass


def store(client: Any, path: Path, uri: str) -> None:
    """Store a file under a URI.

    Raises:
        S3Error: It cannot be read or stored.
    """
    from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415 - heavy
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

    bucket, key = split(uri)
    try:
        client.upload_file(str(path), bucket, key)
    except (S3UploadFailedError, ClientError, BotoCoreError) as error:
        raise S3Error(f"{uri} cannot be stored: {error}") from error
    except OSError as error:
        raise S3Error(f"{path.name} cannot be read: {error.strerror or error}") from error


def store_folder(client: Any, folder: Path, uri: str) -> int:
    """Store all files below a folder under a prefix; how many there were.

    Raises:
        S3Error: One cannot be read or stored.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    base = uri.rstrip("/")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(
            lambda path: store(client, path, f"{base}/{path.relative_to(folder).as_posix()}"), files
        ):
            pass
    return len(files)


def _missing(item: Item, error: Any) -> str:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    said = error.response["Error"].get("Message", "")
    return f"{code} ({status}): {said} (s3://{item.bucket}/{item.key})"


def nothing(uri: str, bucket: str, region: str) -> str:
    """That there is no object, for a request as for a job that has failed.

    The first sentence is SageMaker's (github.com/aws/amazon-sagemaker-examples/issues/2489); the
    second goes on there with the permissions of the role, which nobody looks at here.
    """
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that '
        f'the bucket "{bucket}" exists in the selected region ({region}) and that objects exist '
        "under that S3 prefix."
    )
