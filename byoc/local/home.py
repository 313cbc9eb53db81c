"""Where the local endpoint keeps its state, for one server at a time."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoc.errors import LocalError


def default_home() -> Path:
    """``BYOC_HOME``, else ``.byoc`` in the user's home directory."""
    return Path(os.environ.get("BYOC_HOME") or Path.home() / ".byoc").expanduser().resolve()


@dataclass(frozen=True)
class Home:
    """The folder's parts.

    Attributes:
        root: Of everything.
    """

    root: Path

    @property
    def database(self) -> Path:
        """Jobs, models and endpoints."""
        return self.root / "state.sqlite3"

    @property
    def objects(self) -> Path:
        """Buckets and their objects."""
        return self.root / "objects"

    @property
    def work(self) -> Path:
        """The ``/opt/ml`` of each container, while it runs."""
        return self.root / "work"

    @property
    def logs(self) -> Path:
        """A file for each log stream."""
        return self.root / "logs"

    @property
    def server_log(self) -> Path:
        """What the server itself has to say."""
        return self.root / "server.log"

    @property
    def address(self) -> Path:
        """Process and port of the server that runs."""
        return self.root / "server.json"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            LocalError: They cannot be made.
        """
        try:
            for folder in (self.root, self.objects, self.work, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(
                f"cannot write {self.root} ({error.strerror}); set BYOC_HOME to another folder"
            ) from error

    def claim(self) -> int:
        """Take the folder for this process, until the descriptor is closed.

        Raises:
            LocalError: Another server has it.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            running = self.running() or {}
            where = f" (process {running['pid']}, {running['url']})" if running else ""
            raise LocalError(
                f"another local endpoint uses {self.root}{where}; "
                "stop it with byoc local down, or set BYOC_HOME to another folder"
            ) from None
        return descriptor

    def running(self) -> dict[str, Any] | None:
        """``pid`` and ``url`` of the server that has the folder, or None."""
        try:
            found: dict[str, Any] = json.loads(self.address.read_text())
        except (OSError, ValueError):
            return None
        return found if self.claimed() else None

    def claimed(self) -> bool:
        """Whether a process has the folder; it has until it is gone altogether."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False
