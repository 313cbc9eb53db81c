"""Bringing the submitted source to ``<root>/code``: from S3, an archive or a directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from byoc_training import archive
from byoc_training.errors import SourceError, StorageError, UnavailableError
from byoc_training.paths import DEFAULT_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Written last into a source that we brought, so that another run over the same root (outside
#: a container) takes the source of its own job and not the one left there.
MARKER = ".byoc-source"
S3_CONNECT_SECONDS = 10
S3_READ_SECONDS = 60
S3_ATTEMPTS = 4
_CHUNK_BYTES = 1024 * 1024


def is_provided(code: Path) -> bool:
    """Whether somebody else put the source there (SDK v2 local mode mounts it).

    Raises:
        SourceError: Nobody can tell, for lack of permission.
    """
    try:
        names = [entry.name for entry in code.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SourceError(f"{code} cannot be read: {error.strerror}") from error
    return bool(names) and MARKER not in names


def bring(uri: str, code: Path, environ: Mapping[str, str]) -> None:
    """Bring the source to the code directory, whole or not at all.

    Args:
        uri: ``s3://bucket/key``, ``file:///path``, or a path; an archive or a directory.
        code: The code directory; absent, empty, or with a source of an earlier run.
        environ: Variables; ``AWS_ENDPOINT_URL_S3`` and its like are boto3's own business,
            ``S3_ENDPOINT_URL`` is the toolkit's name for it.

    Raises:
        SourceError: Not a source, or unsafe.
        UnavailableError: The S3 object cannot be had.
        StorageError: The disk is full or not writable.
    """
    try:
        code.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".code-", dir=code.parent))
    except OSError as error:
        raise StorageError(f"cannot write below {code.parent}: {error.strerror}") from error
    try:
        fresh = work / "code"
        if uri.startswith("s3://"):
            local = work / "source.tar.gz"
            _download(uri, local, environ)
        else:
            local = _local(uri, code.parent)
        if local.is_dir():
            _copy(local, fresh, code)
        elif not local.is_file():
            raise SourceError(
                f"{uri} is a device, socket or FIFO; expected an archive or directory"
            )
        else:
            fresh.mkdir()
            archive.unpack(local, fresh)
        (fresh / MARKER).write_text(uri + "\n")
        _install(fresh, code)
    except OSError as error:
        raise StorageError(f"cannot bring the source to {code}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise SourceError(f"sagemaker_submit_directory is {uri!r}: {error}") from error


def _local(uri: str, root: Path) -> Path:
    """The path that a URI names; clients write ``/opt/ml`` wherever the root really is."""
    if uri.startswith("file:"):
        parts = _split(uri)
        if parts.netloc not in ("", "localhost"):
            raise SourceError(f"{uri} names another machine; expected file:///path")
        path = Path(unquote(parts.path))
    elif "://" in uri:
        raise SourceError(f"sagemaker_submit_directory is {uri!r}; expected s3://, file:// or path")
    else:
        path = Path(uri)
    if path.is_relative_to(DEFAULT_ROOT) and not path.exists():
        path = root / path.relative_to(DEFAULT_ROOT)
    if not path.exists():
        raise SourceError(f"sagemaker_submit_directory names {path}, which does not exist")
    return path


def _copy(folder: Path, fresh: Path, code: Path) -> None:
    if code.resolve().is_relative_to(folder.resolve()):
        raise SourceError(
            f"sagemaker_submit_directory is {folder}, which contains the code directory {code}; "
            "name the directory of the source itself"
        )

    def ignore(_: str, names: list[str]) -> set[str]:
        return {"__pycache__", ".git"}.intersection(names)

    try:
        shutil.copytree(folder, fresh, ignore=ignore, ignore_dangling_symlinks=True)
    except shutil.Error as error:
        source, _, reason = error.args[0][0]
        raise StorageError(f"cannot copy {source} to {code}: {reason}") from error
    # The copy of a read-only directory must take files, and go away again.
    for place, _, _ in os.walk(fresh):
        Path(place).chmod(Path(place).stat().st_mode | 0o700)


def _install(fresh: Path, code: Path) -> None:
    """Move the finished tree into place; also where the code directory is a mount point."""
    try:
        if (code / MARKER).exists():
            shutil.rmtree(code)
        os.rename(fresh, code)  # noqa: PTH104 - replaces an empty directory, which Path.rename does too
    except OSError:
        code.mkdir(exist_ok=True)
        moved: list[Path] = []
        try:
            for entry in sorted(fresh.iterdir(), key=lambda one: one.name == MARKER):
                place = code / entry.name
                moved.append(place)
                shutil.move(str(entry), str(place))
        except OSError:
            for place in moved:
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place, ignore_errors=True)
                else:
                    place.unlink(missing_ok=True)
            raise


def _download(uri: str, target: Path, environ: Mapping[str, str]) -> None:
    parts = _split(uri)
    # A key may hold what looks like a query or a fragment.
    key = uri[len("s3://") + len(parts.netloc) :].lstrip("/")
    if not parts.netloc or not key:
        raise SourceError(f"sagemaker_submit_directory is {uri!r}; expected s3://bucket/key")
    boto_errors, client = _s3_client(environ)
    try:
        answer = client(parts.netloc, key)
        body = answer["Body"]
        received = 0
        with target.open("wb") as sink:
            while chunk := body.read(_CHUNK_BYTES):
                sink.write(chunk)
                received += len(chunk)
        expected = answer.get("ContentLength", received)
    except boto_errors as error:
        raise UnavailableError(
            f"cannot download {uri}: {error}; the job's role needs s3:GetObject on it and the "
            "container a way to S3 (not with network isolation)"
        ) from error
    if received != expected:
        raise UnavailableError(f"{uri} arrived cut off: {received} of {expected} bytes")


def _s3_client(
    environ: Mapping[str, str],
) -> tuple[tuple[type[BaseException], ...], Callable[[str, str], dict[str, Any]]]:
    """The errors of boto3 and a function that opens an object."""
    try:
        import boto3  # noqa: PLC0415 - 0.3 s; only jobs whose source is in S3 need it
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as error:
        raise UnavailableError("the source is in S3 but boto3 is not installed here") from error
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    fields = environ.get("TRAINING_JOB_ARN", "").split(":")
    if not region and len(fields) > 3:
        region = fields[3]
    try:
        client = boto3.client(
            "s3",
            region_name=region or None,
            endpoint_url=environ.get("S3_ENDPOINT_URL") or None,
            config=Config(
                connect_timeout=S3_CONNECT_SECONDS,
                read_timeout=S3_READ_SECONDS,
                retries={"total_max_attempts": S3_ATTEMPTS, "mode": "standard"},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise UnavailableError(f"cannot reach S3: {error}") from error

    def open_object(bucket: str, key: str) -> dict[str, Any]:
        return dict(client.get_object(Bucket=bucket, Key=key))

    return (BotoCoreError, ClientError), open_object
