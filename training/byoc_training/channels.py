"""The input channels of a job, from inputdataconfig.json."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc_training import config
from byoc_training.argument import can_be_handed_on
from byoc_training.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from byoc_training.paths import Paths


@dataclass(frozen=True)
class Channel:
    """One channel.

    Attributes:
        name: Letters, digits, dots, dashes and underscores.
        mode: ``File`` (FastFile reports itself as File) or ``Pipe``.
        path: The directory; in Pipe mode the FIFOs are ``<path>_<epoch>``.
    """

    name: str
    mode: str
    path: Path

    def describe(self, seconds: float) -> str:
        """What is there, in words. Opens no file, so that streamed data is not fetched.

        Args:
            seconds: Longest time to count files; beyond it count and size are lower bounds. A
                mount that does not answer is waited for however long it takes (see `look`).
        """
        if self.mode == "Pipe":
            return f"channel {self.name}: Pipe mode, FIFOs {self.path}_0, _1, ..."
        if not os.path.isdir(self.path):  # noqa: PTH112 - Path.is_dir raises without permission
            return f"channel {self.name}: no directory on this host (no data for it here)"
        count, size, complete = _measure(self.path, time.monotonic() + seconds)
        bound = "" if complete else "at least "
        return (
            f"channel {self.name}: {bound}{count} file{'s' * (count != 1)}, {sized(size)}, "
            f"in {self.path}"
        )


def sized(size_bytes: int) -> str:
    """A number of bytes for people."""
    for unit, power, digits in (("TiB", 40, 1), ("GiB", 30, 1), ("MiB", 20, 0), ("KiB", 10, 0)):
        if size_bytes >= 1 << power:
            return f"{size_bytes / (1 << power):.{digits}f} {unit}"
    return f"{size_bytes} byte{'s' * (size_bytes != 1)}"


def read(paths: Paths) -> tuple[dict[str, Channel], Mapping[str, Any]]:
    """The channels by name, and the whole file.

    Without the file, every directory below ``input/data`` is a channel.

    Raises:
        ContractError: The file is malformed.
    """
    path = paths.config / "inputdataconfig.json"
    raw = config.read_object(path)
    if raw is None:
        names = _directories(paths.data)
        return {name: Channel(name, "File", paths.channel(name)) for name in names}, {}
    channels: dict[str, Channel] = {}
    for name, entry in raw.items():
        if not isinstance(entry, dict):
            raise ContractError(f"{path}: channel {name!r} is not described by an object")
        if not name or name in (".", "..") or "/" in name or not can_be_handed_on(name):
            raise ContractError(f"{path}: {name!r} cannot be the name of a channel")
        mode = config.text(path, entry, "TrainingInputMode", "File")
        channels[name] = Channel(name, mode, paths.channel(name))
    return channels, raw


def _directories(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


def _measure(folder: Path, deadline: float) -> tuple[int, int, bool]:
    """The number of files, their bytes, and whether that is all."""
    count, size, pending = 0, 0, [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if time.monotonic() > deadline:
                        return count, size, False
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    count += 1
                    try:
                        size += entry.stat().st_size
                    except OSError:
                        continue
        except OSError:
            continue
    return count, size, True
