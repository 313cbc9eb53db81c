"""What hosts leave behind: archives, failure texts, metrics."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import packaging
from byoc.errors import PackagingError
from byoc.local import links

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Of ``FailureReason`` and ``ExitMessage`` (contract section 1.3).
MOST_CHARACTERS = 1024


class Metrics:
    """The last value of each metric that the log has shown.

    Args:
        definitions: ``MetricDefinitions``; the first group of a ``Regex`` is the value.
    """

    def __init__(self, definitions: Sequence[Mapping[str, str]]) -> None:
        self._expressions = [(one["Name"], re.compile(one["Regex"])) for one in definitions]
        self._values: dict[str, tuple[float, float]] = {}

    def read(self, line: str) -> None:
        """Look for values in a line."""
        for name, expression in self._expressions:
            found = expression.search(line)
            if found is not None and expression.groups:
                with contextlib.suppress(ValueError, TypeError):
                    value = float(found[1])
                    if math.isfinite(value):  # others are no JSON
                        self._values[name] = (value, time.time())

    @property
    def final(self) -> list[dict[str, Any]]:
        """``FinalMetricDataList``."""
        return [
            {"MetricName": name, "Value": value, "Timestamp": when}
            for name, (value, when) in self._values.items()
        ]


def gathered(folders: Sequence[Path], target: Path, place: str, log: Callable[[str], None]) -> Path:
    """One folder with the files of all hosts, and without links.

    Of several files of one name that of the first host stays; the log says so.

    Args:
        folders: What each host has left.
        target: Made, where one of the folders does not do as it is.
        place: Where a container has its folder, such as ``/opt/ml/model``.
        log: The job's.

    Raises:
        PackagingError: A file cannot be linked or copied.
    """
    if len(folders) == 1 and not links.has_any(folders[0]):
        return folders[0]
    target.mkdir(parents=True)
    for folder in folders:
        for name, path in links.followed(folder, place, log):
            if path.is_dir():
                (target / name).mkdir(parents=True, exist_ok=True)
            elif (target / name).exists():
                log(f"several hosts wrote {name}; the first host's file is kept")
            else:
                _link(path, target / name, f"{place}/{name}")
    return target


def _link(path: Path, target: Path, shown: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError as error:
        raise PackagingError(f"{shown} cannot be linked: {error.strerror}") from error


def pack(folder: Path, archive: Path, place: str) -> None:
    """Pack a folder; an empty one gives an archive without entries, as on the platform.

    Raises:
        PackagingError: See `byoc.packaging.pack`; names the container's paths.
    """
    if has_files(folder):
        try:
            packaging.pack(folder, archive)
        except PackagingError as error:
            words = str(error).replace(str(folder), place).replace(str(archive), archive.name)
            raise PackagingError(words) from error
        return
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    archive.write_bytes(buffer.getvalue())


def has_files(folder: Path) -> bool:
    """Whether anything but folders is in a folder."""
    return any(not path.is_dir() for path in folder.rglob("*"))


def text_of(path: Path) -> str:
    """A file's beginning, as much as the platform shows of it; empty when there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        text = file.read(4 * MOST_CHARACTERS).decode("utf-8", "replace").strip()
        return text[:MOST_CHARACTERS]
    return ""


def algorithm_error(text: str, code: int) -> str:
    """``FailureReason`` of a program that failed: the text in full as far as it goes."""
    begin, end = "AlgorithmError: ", f", exit code: {code}"
    words = text or "see the job's log for more information"
    return begin + words[: MOST_CHARACTERS - len(begin) - len(end)] + end


def remove(folder: Path) -> None:
    """Remove a job's folder, also what its program has made read-only."""
    for path, folders, _ in os.walk(folder):
        for name in (".", *folders):
            with contextlib.suppress(OSError):
                inside = Path(path) / name
                if not inside.is_symlink():
                    inside.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
