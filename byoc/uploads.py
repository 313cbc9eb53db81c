"""Folders and files to S3, once: what is there under the same content is not sent again."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from byoc.errors import SettingsError
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from byoc.aws import Aws
    from byoc.report import Report

PREFIX = "byoc"
_THREADS = 8


def files(folder: Path) -> list[Path]:
    """The files of a folder, or the one file, in a fixed order.

    Raises:
        SettingsError: There is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise SettingsError(f"{folder} is neither a folder nor a file; give one, or s3://…")
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if not found:
        raise SettingsError(f"{folder} holds no file")
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError:  # noqa: PERF203 - costs nothing
            raise SettingsError(
                f"the name of {str(path)!r} is not UTF-8, which S3 does not take; rename it"
            ) from None
    return found


def upload(
    aws: Aws, source: Path, bucket: str, kind: str, *, title: str, report: Report = SILENT
) -> str:
    """Upload a folder, or a file, under a name that its content gives.

    Args:
        aws: Where.
        source: What.
        bucket: Into which bucket.
        kind: Such as ``data``; a part of the key.
        title: What the progress is called.
        report: Shows it.

    Returns:
        ``s3://…/`` of the folder, or ``s3://…`` of the file.

    Raises:
        SettingsError: There is nothing to upload, or it cannot be read.
        ByocError: S3 refuses.
    """
    paths = files(source)
    root = source if source.is_dir() else source.parent
    report.waiting(f"{title}: reading {len(paths)} files")
    try:
        sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
        digest = _digest(root, [*sizes])
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from error
    prefix = f"{PREFIX}/{kind}/{digest}/"
    address = f"s3://{bucket}/{prefix}" + ("" if source.is_dir() else source.name)
    if aws.dry_run:
        for name, size in sizes.items():
            request = {"Bucket": bucket, "Key": prefix + name}
            aws.plan("s3", "PutObject", request, file=str(root / name), bytes=size)
        return address
    there = _there(aws, bucket, prefix)
    missing = [name for name, size in sizes.items() if there.get(prefix + name) != size]
    if not missing:
        report.say(f"{title} is in {address} already")
        return address
    _send(aws, root, bucket, prefix, {name: sizes[name] for name in missing}, title, report)
    return address


def _send(  # noqa: PLR0913 - what is sent, where to, and who is told
    aws: Aws,
    root: Path,
    bucket: str,
    prefix: str,
    sizes: dict[str, int],
    title: str,
    report: Report,
    *,
    threads: int = _THREADS,
) -> None:
    client, total = aws.client("s3"), sum(sizes.values())
    done, lock = 0, threading.Lock()
    with report.transfer(f"{title} to s3://{bucket}/{prefix}") as transfer:

        def sent(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                transfer.update("", done, total)

        def send(name: str) -> None:
            try:
                client.upload_file(str(root / name), bucket, prefix + name, Callback=sent)
            except OSError as error:
                raise SettingsError(f"cannot read {root / name}: {error.strerror}") from error
            except Exception as error:
                raise aws.told(error, "s3:PutObject") from error

        pool = ThreadPoolExecutor(threads)
        try:
            for future in [pool.submit(send, name) for name in sizes]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _there(aws: Aws, bucket: str, prefix: str) -> dict[str, int]:
    """Sizes in bytes of the objects below a prefix."""
    found: dict[str, int] = {}
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        answer = aws.call("s3", "ListObjectsV2", request)
        found |= {one["Key"]: int(one["Size"]) for one in answer.get("Contents", ())}
        if not answer.get("IsTruncated"):
            return found
        request["ContinuationToken"] = answer["NextContinuationToken"]


def _digest(root: Path, names: Sequence[str]) -> str:
    """Sixteen characters that stand for names and contents."""
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for name, content in zip(names, pool.map(lambda n: _sha256(root / n), names), strict=True):
            whole.update(f"{len(name)} {name} {content}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:16]


def _sha256(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()
