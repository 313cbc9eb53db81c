"""A folder kept the same as a prefix of S3: checkpoints, TensorBoard's files, continuous outputs.

What is under the prefix is brought first; from then on additions, changes and deletions in the
folder are repeated there (contract section 2.5).
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc.local import s3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SECONDS = 1.0


class Mirror:
    """Folders of all hosts of a job, and the one prefix.

    Args:
        client: Of S3.
        folders: One a host; files of the same name overwrite each other there.
        uri: The prefix.
        log: Told once what went wrong.
    """

    def __init__(
        self, client: Any, folders: list[Path], uri: str, log: Callable[[str], None]
    ) -> None:
        self._client, self._folders, self._log = client, folders, log
        self._bucket, prefix = s3.split(uri)
        self._uri, self._prefix = uri.rstrip("/"), prefix.rstrip("/")
        self._seen: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = False

    def bring(self, cancelled: Callable[[], bool]) -> None:
        """Bring what is there; nothing is no error, a missing bucket is.

        Raises:
            S3Error: The bucket is missing, or the disk is full.
        """
        folder = f"{self._prefix}/" if self._prefix else ""
        items = [
            s3.Item(item.bucket, item.key, item.key[len(folder) :])
            for item in self._listed()
            if item.key.startswith(folder)
        ]
        for target in self._folders:
            target.mkdir(parents=True, exist_ok=True)
            s3.fetch(self._client, items, target, cancelled)
        self._seen = self._files()[0]

    def start(self) -> None:
        """Repeat changes from now on."""
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Repeat the last changes.

        Raises:
            S3Error: They are not taken.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._repeat()

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            try:
                self._repeat()
            except Exception as error:  # noqa: BLE001,PERF203 - tried again
                if not self._told:
                    self._told = True
                    self._log(f"{self._uri} does not follow its folder: {error}")

    def _repeat(self) -> None:
        files, paths, whole = self._files()
        for name, state in files.items():
            if self._seen.get(name) != state:
                try:
                    s3.store(self._client, paths[name], f"{self._uri}/{name}")
                except s3.S3Error:
                    if paths[name].exists():
                        raise
                    continue  # rotated away since
                self._seen[name] = state
        # What a folder held that is gone altogether, or cannot be read, has not been deleted.
        if whole:
            for name in self._seen.keys() - files.keys():
                self._delete(name)
                del self._seen[name]

    def _files(self) -> tuple[dict[str, tuple[int, int]], dict[str, Path], bool]:
        """State (time and size) and place of every file, by its name; whether these are all."""
        found: dict[str, tuple[int, int]] = {}
        paths: dict[str, Path] = {}
        unread: list[OSError] = []

        def walk(folder: Path) -> Iterator[Path]:
            if not folder.is_dir():
                unread.append(FileNotFoundError(str(folder)))
            for parent, _, names in os.walk(folder, onerror=failed):
                yield from (Path(parent, name) for name in names)

        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # a folder that is rotated away
                unread.append(error)

        for folder in self._folders:
            for path in walk(folder):
                with contextlib.suppress(OSError):
                    if path.is_file():
                        status = path.stat()
                        name = path.relative_to(folder).as_posix()
                        state = (status.st_mtime_ns, status.st_size)
                        # Of several hosts' files of one name the newest is meant.
                        if name not in found or state > found[name]:
                            found[name], paths[name] = state, path
        return found, paths, not unread

    def _listed(self) -> list[s3.Item]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

        try:
            pages = self._client.get_paginator("list_objects_v2")
            return [
                s3.Item(self._bucket, found["Key"], found["Key"], found["Size"])
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix)
                for found in page.get("Contents", ())
            ]
        except (ClientError, BotoCoreError) as error:
            raise s3.S3Error(f"{self._uri} cannot be listed: {error}") from error

    def _delete(self, name: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - heavy

        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            raise s3.S3Error(f"{self._uri}/{name} cannot be deleted: {error}") from error


def close_all(mirrors: Iterable[Mirror]) -> None:
    """Close each, whatever becomes of the others: one that goes on would see its folder go.

    Raises:
        S3Error: The first that did not take its last changes.
    """
    first: s3.S3Error | None = None
    for mirror in mirrors:
        try:
            mirror.close()
        except s3.S3Error as error:  # noqa: PERF203 - a handful
            first = first or error
    if first is not None:
        raise first
