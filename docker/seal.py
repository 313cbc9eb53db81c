"""Finish a layer: ``seal.py DIRECTORY...``, run at the end of each step that installs.

Compiles bytecode (importing PyTorch without it takes seconds more and a read-only container
could never save it), makes everything readable for other users (serverless endpoints do not run
as root) and gives every new file one fixed time, so that the same locked packages make the same
layer, byte by byte, wherever they are built: a registry that has it need not get it again.

Files of earlier layers already have that time and are left alone: touching them would copy
them, gigabytes, into this layer.
"""

from __future__ import annotations

import compileall
import os
import stat
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def seal(directory: Path, epoch_seconds: int) -> None:
    """Set mode and time of what is new below a directory."""
    for folder, folders, files in os.walk(directory, topdown=False):
        for name in (*folders, *files, "."):
            path = os.path.normpath(os.path.join(folder, name))
            status = os.lstat(path)
            if int(status.st_mtime) == epoch_seconds:
                continue
            if not stat.S_ISLNK(status.st_mode):
                mode = stat.S_IMODE(status.st_mode)
                wanted = mode | 0o444
                if stat.S_ISDIR(status.st_mode) or mode & 0o100:
                    wanted |= 0o111
                if wanted != mode:
                    os.chmod(path, wanted)
            os.utime(path, (epoch_seconds, epoch_seconds), follow_symlinks=False)


def finish(directory: Path, epoch_seconds: int) -> None:
    """Seal, compile, and seal what compiling has written."""
    # First the sources: bytecode records the time of its source.
    seal(directory, epoch_seconds)
    compileall.compile_dir(
        directory, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.TIMESTAMP
    )
    seal(directory, epoch_seconds)


def main(arguments: list[str]) -> None:
    """Finish the named directories."""
    epoch_seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    for argument in arguments:
        finish(Path(argument), epoch_seconds)
    # Installers leave nothing in /tmp, and the engine mounts files in /etc: their times are all
    # that is new there.
    for folder in ("/tmp", "/etc"):
        os.utime(folder, (epoch_seconds, epoch_seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
