"""Unpacking submitted code: nothing outside the target, nothing half done.

An archive that tries to leave its directory is refused as a whole: it was not made by a
SageMaker client, and running part of it would hide that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from byoc_training.errors import SourceError, StorageError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Left free on the disk for the job itself.
RESERVE_BYTES = 16 * 1024 * 1024
#: No source tree has as many; an archive of empty files would use up the inodes.
MOST_MEMBERS = 1_000_000
_CHUNK_BYTES = 1024 * 1024
#: Names that are too long, that lead in a circle, or that are both a file and a directory.
_MEMBERS_FAULT = (errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar archive, compressed or not, into an existing empty directory.

    Args:
        archive: ``.tar``, ``.tar.gz``, ``.tar.bz2`` or ``.tar.xz``; the content decides.
        target: May hold part of the files after an error; the caller throws it away then.

    Raises:
        SourceError: Not an archive, damaged, or with a member that is not a plain file or
            directory or a link inside the archive.
        StorageError: No room, or the target cannot be written.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            _unpack_members(tar, target.resolve(), archive.name)
            # The checksum of a compressed archive comes after the last member.
            while tar.fileobj is not None and tar.fileobj.read(_CHUNK_BYTES):
                pass
    except (tarfile.TarError, EOFError, ValueError) as error:
        # What every decompressor had to say follows on further lines.
        reason = str(error).split("\n", 1)[0].rstrip(":")
        raise SourceError(f"{archive} is not a complete tar archive: {reason}") from error
    except OSError as error:
        # gzip, bz2 and lzma report damage as errors without a number.
        if error.errno is None:
            raise SourceError(f"{archive} is damaged: {error}") from error
        if error.errno in _MEMBERS_FAULT:
            raise SourceError(f"{archive} has a member that cannot be: {error.strerror}") from error
        raise StorageError(f"cannot unpack {archive} into {target}: {error.strerror}") from error
    except TrainingError:
        raise
    except Exception as error:
        # Bytes nobody meant reach every corner of tarfile and zlib: overflows, recursion, loops.
        raise SourceError(f"{archive} is damaged: {error}") from error


def _unpack_members(tar: tarfile.TarFile, target: Path, label: str) -> None:
    budget = shutil.disk_usage(target).free - RESERVE_BYTES
    directories: list[tuple[Path, int]] = []
    for member in _checked(tar, label):
        place = target.joinpath(*_parts(member.name, label))
        if place == target:
            continue
        _inside(place.parent, target, member.name, label)
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
            directories.append((place, member.mode))
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() or place.is_file():
            place.unlink()
        if member.issym():
            _check_link(place.parent / member.linkname, target, member, label)
            place.symlink_to(member.linkname)
        elif member.islnk():
            other = target.joinpath(*_parts(member.linkname, label))
            _inside(other, target, member.linkname, label)
            if not other.is_file() or other.is_symlink():
                raise SourceError(
                    f"{label}: {member.name} is a link to {member.linkname}, "
                    "which is no file of the archive before it"
                )
            shutil.copyfile(other, place)
        else:
            budget -= member.size
            if budget < 0:
                raise StorageError(
                    f"{label} does not fit on the disk: {member.name} and the files before it "
                    "need more than is free; use a larger volume or a smaller archive"
                )
            _write(tar, member, place)
    for place, mode in reversed(directories):
        place.chmod((mode & 0o755) | 0o700)


def _checked(tar: tarfile.TarFile, label: str) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= MOST_MEMBERS:
            raise SourceError(f"{label} has more than {MOST_MEMBERS} members")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise SourceError(f"{label}: {member.name} is a device or a FIFO, expected files only")
        yield member


def _parts(name: str, label: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise SourceError(
            f"{label}: member {name!r} would leave the code directory; pack relative names only"
        )
    return path.parts


def _inside(place: Path, target: Path, name: str, label: str) -> None:
    """A link that an earlier member made may point elsewhere, but never out."""
    if not place.resolve().is_relative_to(target):
        raise SourceError(f"{label}: member {name!r} goes through a link out of the directory")


def _check_link(link_target: Path, target: Path, member: tarfile.TarInfo, label: str) -> None:
    if member.linkname.startswith("/") or not Path(os.path.normpath(link_target)).is_relative_to(
        target
    ):
        raise SourceError(
            f"{label}: link {member.name} points out of the archive, to {member.linkname}"
        )
    _inside(link_target, target, member.name, label)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source = tar.extractfile(member)
    if source is None:  # only for members that are no files, which _checked refused
        raise SourceError(f"{member.name} has no content")
    mode = 0o755 if member.mode & 0o111 else 0o644
    left = member.size
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with source, os.fdopen(descriptor, "wb") as sink:
        while left and (chunk := source.read(min(left, _CHUNK_BYTES))):
            sink.write(chunk)
            left -= len(chunk)
    if left:
        raise SourceError(f"{member.name} is cut off, {left} bytes are missing")
    # A time beyond what the disk can hold is no reason to refuse the file.
    with contextlib.suppress(OverflowError, ValueError):
        os.utime(place, (member.mtime, member.mtime))
