"""What hosts leave behind: archives, failure texts, metrics."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import packaging
from byoc.errors import PackagingError

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
                    self._values[name] = (float(found[1]), time.time())

    @property
    def final(self) -> list[dict[str, Any]]:
        """``FinalMetricDataList``."""
        return [
            {"MetricName": name, "Value": value, "Timestamp": when}
            for name, (value, when) in self._values.items()
        ]


def merged(folders: Sequence[Path], target: Path, log: Callable[[str], None]) -> Path:
    """One folder with the files of all hosts.

    Of several files of one name that of the first host stays; the log says so.

    Raises:
        PackagingError: A file cannot be linked or copied.
    """
    if len(folders) == 1:
        return folders[0]
    target.mkdir(parents=True)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_dir() and not path.is_symlink():
                (target / name).mkdir(parents=True, exist_ok=True)
            elif (target / name).exists():
                log(f"several hosts wrote {name}; the first host's file is kept")
            else:
                _link(path, target / name)
    return target


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            os.link(path, target)
    except OSError as error:
        raise PackagingError(f"{path.name} cannot be linked: {error.strerror}") from error


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder; an empty one gives an archive without entries, as on the platform.

    Raises:
        PackagingError: See `byoc.packaging.pack`.
    """
    if has_files(folder):
        packaging.pack(folder, archive)
        return
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    archive.write_bytes(buffer.getvalue())


def has_files(folder: Path) -> bool:
    """Whether anything but folders is in a folder."""
    return any(not path.is_dir() or path.is_symlink() for path in folder.rglob("*"))


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
