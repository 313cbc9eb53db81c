"""Model archives: what ``model.tar.gz`` may hold, packed and unpacked as the platform does it.

The platform unpacks the archive as it is and refuses links; hosting mounts the result read-only
(contract sections 2.4 and 8.1). An archive made here is complete or absent, and the same files
give the same bytes.
"""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from byoc.errors import PackagingError

if TYPE_CHECKING:
    from collections.abc import Iterator


def pack(folder: Path, archive: Path, *, code: Path | None = None) -> int:
    """Pack the files below ``folder`` into ``archive`` (``.tar.gz``); returns its size in bytes.

    Args:
        folder: The model's files.
        archive: Made, or replaced when it is complete.
        code: A folder that is packed as ``code/``: the handler ``inference.py`` and what it needs.

    Raises:
        PackagingError: the folder is missing or empty, holds a link or something that is no
            file, or the archive cannot be written. Nothing is left under the archive's name.
    """
    if not folder.is_dir():
        raise PackagingError(f"{folder} is no folder; give the folder that holds the model's files")
    entries = list(_entries(folder))
    if not any(path.is_file() for path in entries):
        raise PackagingError(f"{folder} holds no file; a model archive needs at least one")
    parts = {path.relative_to(folder).as_posix(): path for path in entries}
    if code is not None:
        parts = {name: path for name, path in parts.items() if name.split("/")[0] != "code"}
        parts |= _code(code)
    part = archive.with_name(f".{archive.name}.part")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        # No name and no time in the gzip header: the same files give the same bytes.
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, path in parts.items():
                _add(tar, path, name)
        part.replace(archive)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PackagingError(f"cannot write {archive}: {error.strerror or error}") from error
    return archive.stat().st_size


def unpack(archive: Path, folder: Path, *, read_only: bool = False) -> list[str]:
    """Unpack ``archive`` into the new or empty ``folder``; returns the names of its files.

    Args:
        archive: a ``.tar.gz`` file.
        folder: where its content goes, with no top directory stripped.
        read_only: take the write permission off everything, as a real-time host does.

    Raises:
        PackagingError: not a gzipped tar archive, damaged, or with an entry that is a link, no
            regular file, or would land outside of ``folder``. Nothing is unpacked then.
    """
    try:
        with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            members = tar.getmembers()
            for member in members:
                _check(member, archive)
            while packed.read(1 << 20):  # to the end, where gzip's checksum is
                pass
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                _extract(tar, member, folder)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise PackagingError(f"{archive} is no complete .tar.gz archive: {error}") from error
    except OSError as error:
        raise PackagingError(f"cannot unpack {archive}: {error.strerror or error}") from error
    if read_only:
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    return sorted(member.name for member in members if member.isfile())


def _code(folder: Path) -> dict[str, Path]:
    """The files of a handler's folder by their names in an archive, without compiled ones."""
    if not (folder / "inference.py").is_file():
        raise PackagingError(f"{folder} holds no inference.py; give the folder of the handler")
    kept = [path for path in _entries(folder) if "__pycache__" not in path.parts]
    names = {f"code/{path.relative_to(folder).as_posix()}": path for path in kept}
    return {"code": folder, **names}


def _entries(folder: Path) -> Iterator[Path]:
    """Folders and files below ``folder`` in a fixed order, links and devices refused."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise PackagingError(
                f"{path} is a symbolic link to {path.readlink()}; SageMaker refuses archives "
                "with links: put the file itself there"
            )
        if not (path.is_dir() or path.is_file()):
            raise PackagingError(f"{path} is neither a file nor a folder; remove it")
        yield path


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add one entry without the packing user's name, id, time or special permissions."""
    info = tarfile.TarInfo(name)
    if path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
        return
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
        tar.addfile(info, file)


def _check(member: tarfile.TarInfo, archive: Path) -> None:
    """Refuse an entry that hosting would refuse or that leaves the target folder."""
    if not (member.isfile() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise PackagingError(f"{archive}: the entry {member.name!r} is {kind}; pack files only")
    parts = Path(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        raise PackagingError(
            f"{archive}: the entry {member.name!r} would be unpacked outside of the model folder"
        )


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one checked entry; owner and special permission bits are not taken over."""
    target = folder / member.name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # noqa: S101 - _check let only files and folders through
    with source, target.open("wb") as file:
        while block := source.read(1 << 20):
            file.write(block)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)
