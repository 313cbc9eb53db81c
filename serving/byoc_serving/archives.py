"""Unpacking a tar archive of the handler's code, into a directory of our own, safely."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from byoc_serving.errors import ArchiveError

_MAX_UNPACKED_BYTES = 2 * 1024**3


def unpack(archive: Path, target: Path) -> None:
    """Unpack regular files and directories; refuse the whole archive for anything else.

    Raises:
        ArchiveError: not a tar archive, or an unsafe or oversized one; ``target`` may then
            hold a part and must not be used.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            unpacked_bytes = 0
            for member in tar:
                path = _checked(member, archive)
                unpacked_bytes += member.size
                if unpacked_bytes > _MAX_UNPACKED_BYTES:
                    raise ArchiveError(
                        f"{archive.name} unpacks to more than {_MAX_UNPACKED_BYTES} bytes"
                    )
                destination = target.joinpath(*path.parts)
                if member.isdir():
                    destination.mkdir(parents=True, exist_ok=True)
                    continue
                destination.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                if source is None:
                    raise ArchiveError(f"{archive.name}: {member.name} has no content")
                with source, destination.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
            # The tar ends before the compressed stream does, which ends with its checksum.
            while tar.fileobj is not None and tar.fileobj.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveError(
            f"cannot unpack {archive.name}: {error}; expected a tar.gz of the handler's code"
        ) from error


def _checked(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise ArchiveError(
            f"{archive.name} has the member {member.name!r}, which leads outside; pack it anew "
            "with relative names"
        )
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(
            f"{archive.name} has the member {member.name!r}, which is a link or a device; pack "
            "files and directories only"
        )
    return path
