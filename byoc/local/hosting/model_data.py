"""The files of a model, from S3 to the folder that stands at ``/opt/ml/model``."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from byoc.errors import PackagingError
from byoc.local import s3 as objects
from byoc.packaging import unpack

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModelDataError(Exception):
    """The files cannot be had: one line for ``FailureReason``."""


def fetch(container: Mapping[str, Any], root: Path, s3: Any) -> None:
    """Make ``root/model``, read-only.

    Args:
        container: Its ``ModelDataUrl`` or ``ModelDataSource`` (contract sections 8.1 and 8.2);
            neither is an empty folder.
        root: Stands for ``/opt/ml``.
        s3: A client.

    Raises:
        ModelDataError: An object is missing, no archive, or has a name that is no path.
    """
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    target = root / "model"
    root.mkdir(parents=True, exist_ok=True)
    if source is not None:
        _fetch_source(source, target, s3)
    elif url := container.get("ModelDataUrl"):
        fetch_archive(url, target, s3)
    else:
        target.mkdir()


def fetch_archive(url: str, target: Path, s3: Any) -> None:
    """Unpack a ``.tar.gz`` object into a new folder, read-only.

    Raises:
        ModelDataError: It is missing, or no such archive.
    """
    archive = target.with_name(f".{target.name}.tar.gz")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download(url, *_located(url), archive, s3)
        unpack(archive, target, read_only=True)
    except PackagingError as error:
        words = str(error).replace(str(archive), "the archive")
        raise ModelDataError(f"Failed to extract model data from {url}: {words}") from error
    finally:
        archive.unlink(missing_ok=True)


def is_object(container: Mapping[str, Any]) -> bool:
    """Whether a container's data are one object; else they are what lies below a prefix."""
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    return (
        source is None or source["S3DataType"] == "S3Object" or source["CompressionType"] == "Gzip"
    )


def folder_of(prefix: str) -> str:
    """What the keys of a model's files begin with; empty for a whole bucket."""
    return prefix if prefix.endswith("/") or not prefix else f"{prefix}/"


def remove(folder: Path) -> None:
    """Delete a folder that may be read-only."""
    if folder.is_dir():
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _fetch_source(source: Mapping[str, Any], target: Path, s3: Any) -> None:
    uri = source["S3Uri"]
    kind, compression = source["S3DataType"], source["CompressionType"]
    if compression == "Gzip":
        fetch_archive(uri, target, s3)
        return
    bucket, prefix = _located(uri)
    target.mkdir()
    if kind == "S3Object":
        _download(uri, bucket, prefix, target / PurePosixPath(prefix).name, s3)
    else:
        prefix = folder_of(prefix)
        keys = _keys(uri, bucket, prefix, s3)
        if not keys:
            raise ModelDataError(
                f"Could not find model data at {uri}: there is no object below this prefix."
            )
        for key in keys:
            _download(f"s3://{bucket}/{key}", bucket, key, _place(target, key[len(prefix) :]), s3)
    for path in [*target.rglob("*"), target]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def _place(target: Path, name: str) -> Path:
    """Where an object's file goes; its folder is made.

    Raises:
        ModelDataError: Its name is no path below the folder (contract section 8.2).
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        raise ModelDataError(f"The object {name!r} below the model's prefix has no file's name.")
    path = target.joinpath(*parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelDataError(f"{name!r} is both a file and a folder: {error.strerror}.") from error
    return path


def _keys(uri: str, bucket: str, prefix: str, s3: Any) -> list[str]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]
    except (ClientError, BotoCoreError) as error:
        raise ModelDataError(f"Could not list model data at {uri}: {error}") from error


def _download(uri: str, bucket: str, key: str, path: Path, s3: Any) -> None:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

    try:
        s3.download_file(bucket, key, str(path))
    except (ClientError, BotoCoreError, OSError) as error:
        raise ModelDataError(
            f"Failed to download model data from URL: {uri}. Please ensure that there is an "
            f"object located at the URL. ({error})"
        ) from error


def _located(uri: str) -> tuple[str, str]:
    try:
        return objects.split(uri)
    except objects.S3Error as error:
        raise ModelDataError(f"{error}.") from error
