"""Log streams: lines in a file below ``logs/``, and told to CloudWatch Logs in batches.

moto holds log events in memory, so the files are what lasts: `Journals.recover` tells them again
when the endpoint starts. A file is one JSON array a line: milliseconds since 1970, text.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from byoc.local.clients import Clients
    from byoc.local.home import Home

#: Limits of PutLogEvents with room to spare: 10,000 events, 1 MiB, 256 KiB an event.
BATCH_EVENTS, BATCH_BYTES, LINE_BYTES = 1000, 900_000, 200_000
#: Lines that come within this time travel together.
GATHER_SECONDS = 0.1

Event = tuple[int, str]


class Journals:
    """All log streams.

    Args:
        home: Where the files are.
        clients: For CloudWatch Logs.
        log: The server's own, for what cannot be told.
    """

    def __init__(self, home: Home, clients: Clients, log: Callable[[str], None]) -> None:
        self._folder, self._clients, self._log = home.logs, clients, log
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def open(self, group: str, stream: str) -> Journal:
        """A new stream, or the continuation of one.

        Args:
            group: Such as ``/aws/sagemaker/TrainingJobs``.
            stream: Such as ``job/algo-1-1700000000``.
        """
        folder = self._folder / quote(group, safe="")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{quote(stream, safe='')}.log"
        return Journal(path, lambda events: self.tell(group, stream, events))

    def recover(self) -> None:
        """Tell CloudWatch Logs what the files of earlier processes hold."""
        for path in sorted(self._folder.glob("*/*.log")):
            group, stream = unquote(path.parent.name), unquote(path.name.removesuffix(".log"))
            if (group, stream) not in self._known:
                self.tell(group, stream, _read(path))

    def tell(self, group: str, stream: str, events: Iterable[Event]) -> None:
        """Send events; a failure is in the server's log, and the file has them."""
        try:
            logs = self._clients("logs")
            self._make(logs, group, stream)
            for batch in _batches(events):
                logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=batch)
        except Exception as error:  # noqa: BLE001 - a job does not fail for its log
            self._log(f"log events of {group} {stream} were not taken: {error}")

    def _make(self, logs: Any, group: str, stream: str) -> None:
        with self._lock:
            if (group, stream) in self._known:
                return
            taken = logs.exceptions.ResourceAlreadyExistsException
            with contextlib.suppress(taken):
                logs.create_log_group(logGroupName=group)
            with contextlib.suppress(taken):
                logs.create_log_stream(logGroupName=group, logStreamName=stream)
            self._known.add((group, stream))


class Journal:
    """One log stream, written by any thread."""

    def __init__(self, path: Path, tell: Callable[[list[Event]], None]) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._tell = tell
        self._pending: list[Event] = []
        self._closed = False
        self._last = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send, name="journal", daemon=True)
        self._thread.start()

    def line(self, text: str) -> None:
        """Add a line."""
        with self._changed:
            if self._closed:
                return
            # CloudWatch Logs refuses a batch whose events are not in the order of their times.
            self._last = max(self._last, int(time.time() * 1000))
            event = (self._last, text)
            with contextlib.suppress(OSError):  # a full disk: CloudWatch Logs still has it
                self._file.write(json.dumps(event) + "\n")
                self._file.flush()
            self._pending.append(event)
            self._changed.notify_all()

    def close(self) -> None:
        """Return when everything has been told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._file.close()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                self._changed.wait_for(lambda: self._closed, GATHER_SECONDS)
                events, self._pending = self._pending, []
            self._tell(events)


def _read(path: Path) -> Iterable[Event]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # the last line of a killed process
                when, text = json.loads(line)
                yield when, text


def _batches(events: Iterable[Event]) -> Iterable[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for when, text in events:
        # An event has at least one character.
        message = text.encode()[:LINE_BYTES].decode("utf-8", "ignore") or " "
        size += len(message.encode()) + 26
        if batch and (len(batch) == BATCH_EVENTS or size > BATCH_BYTES):
            yield batch
            batch, size = [], len(message.encode()) + 26
        batch.append({"timestamp": when, "message": message})
    if batch:
        yield batch
