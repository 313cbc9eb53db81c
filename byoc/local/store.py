"""Jobs, models and endpoints, kept on the disk: a restart and a ``kill -9`` lose nothing.

One SQLite file in write-ahead mode: what `create` or `update` has returned from is there
whatever becomes of the process. All of it is held in memory as well, for invocations.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Document = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resources (
    kind TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, name)
)
"""


class ExistsError(Exception):
    """The name is taken."""


class MissingError(Exception):
    """There is nothing of that name."""


class Store:
    """Documents by kind and name.

    A document is JSON with times as seconds since 1970; ``CreationTime`` and ``LastModifiedTime``
    are kept here. Whoever gets a document owns it: it is a copy.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(_SCHEMA)
        self._kinds: dict[str, dict[str, Document]] = {}
        for kind, name, document in self._database.execute("SELECT * FROM resources"):
            self._kinds.setdefault(kind, {})[name] = json.loads(document)

    def create(self, kind: str, name: str, document: Document) -> Document:
        """Keep a new document.

        Raises:
            ExistsError: The name is taken.
        """
        with self._lock:
            if name in self._kinds.get(kind, {}):
                raise ExistsError(name)
            now = time.time()
            whole = {**_plain(document), "CreationTime": now, "LastModifiedTime": now}
            self._write(kind, name, whole)
            return copy.deepcopy(whole)

    def get(self, kind: str, name: str) -> Document | None:
        """The document, or None."""
        with self._lock:
            return copy.deepcopy(self._kinds.get(kind, {}).get(name))

    def update(self, kind: str, name: str, change: Callable[[Document], None]) -> Document:
        """Change a document; nothing is changed when ``change`` raises.

        Raises:
            MissingError: There is none.
        """
        with self._lock:
            document = self.get(kind, name)
            if document is None:
                raise MissingError(name)
            change(document)
            document["LastModifiedTime"] = time.time()
            self._write(kind, name, _plain(document))
            return document

    def delete(self, kind: str, name: str) -> bool:
        """Forget a document; whether there was one."""
        with self._lock:
            if name not in self._kinds.get(kind, {}):
                return False
            self._database.execute("DELETE FROM resources WHERE kind=? AND name=?", (kind, name))
            del self._kinds[kind][name]
            return True

    def all(self, kind: str) -> list[Document]:
        """Every document of a kind, the oldest first."""
        with self._lock:
            found = copy.deepcopy([*self._kinds.get(kind, {}).values()])
        return sorted(found, key=lambda document: document["CreationTime"])

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def _write(self, kind: str, name: str, document: Document) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO resources VALUES (?, ?, ?)", (kind, name, json.dumps(document))
        )
        self._kinds.setdefault(kind, {})[name] = document


def _plain(document: Document) -> Document:
    plain: Document = json.loads(json.dumps(document, default=_seconds))
    return plain


def _seconds(value: Any) -> float:
    if isinstance(value, dt.datetime):
        return value.timestamp()
    raise TypeError(f"{value!r} cannot be kept")
