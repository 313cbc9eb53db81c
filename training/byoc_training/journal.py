"""Numbers as JSON lines: appended one by one, in order, whatever happens to the program.

JSON has no words for NaN and the infinities; they are the texts ``nan``, ``inf`` and ``-inf``,
which Python's ``float`` and most other readers of numbers take.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from byoc_training.appended import AppendedFile
from byoc_training.checkpoint import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_NOT_FINITE = ("nan", "inf", "-inf")


class Journal:
    """One file of records.

    Args:
        path: The file, made when the first record comes. A last line that was cut off is
            taken out then.
        key: The member of a record that counts up, e.g. ``step``.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._file = AppendedFile(path)
        self._key = key
        self._checked = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            OSError: It cannot be written; nothing of it is.
        """
        if not self._checked:
            self._end_last_line()
            self._checked = True
        self._file.append(_line(record))

    def records(self) -> list[dict[str, Any]]:
        """All lines that are whole; the others are left out."""
        try:
            lines = self._file.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get(self._key), int | float):
                found.append({name: _number(value) for name, value in record.items()})
        return found

    def cut(self, first: float) -> None:
        """Take out the lines from a value of the key on: they are about to come again.

        Raises:
            OSError: The file cannot be written; it is as it was.
        """
        before = self.records()
        kept = [record for record in before if record[self._key] < first]
        if len(kept) < len(before):
            self.replace(kept)

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Put other lines in place of all.

        Raises:
            OSError: The file cannot be written; it is as it was.
        """
        self._file.close()
        self._file.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file.path, b"".join(map(_line, records)))
        self._checked = True

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _end_last_line(self) -> None:
        try:
            content = self._file.path.read_bytes()
        except FileNotFoundError:
            return
        if content and not content.endswith(b"\n"):
            write_atomically(self._file.path, content[: content.rfind(b"\n") + 1])


def _line(record: Mapping[str, Any]) -> bytes:
    plain = {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return (json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _number(value: Any) -> Any:
    return float(value) if value in _NOT_FINITE else value
