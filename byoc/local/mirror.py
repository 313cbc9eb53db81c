"""A folder kept the same as a prefix of S3: checkpoints, TensorBoard's files, continuous outputs.

What is under the prefix is brought first; from then on additions, changes and deletions in the
folder are repeated there (contract section 2.5).
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from byoc.local import s3

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
            except s3.S3Error as error:  # noqa: PERF203 - tried again
                if not self._told:
                    self._told = True
                    self._log(f"{self._uri} does not follow its folder: {error}")

    def _repeat(self) -> None:
        files, paths = self._files()
        for name, state in files.items():
            if self._seen.get(name) != state:
                with contextlib.suppress(FileNotFoundError):
                    if paths[name].exists():  # rotated away since
                        s3.store(self._client, paths[name], f"{self._uri}/{name}")
        for name in self._seen.keys() - files.keys():
            self._delete(name)
        self._seen = files

    def _files(self) -> tuple[dict[str, tuple[int, int]], dict[str, Path]]:
        """State (time and size) and place of every file, by its name."""
        found: dict[str, tuple[int, int]] = {}
        paths: dict[str, Path] = {}
        for folder in self._folders:
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    if path.is_file():
                        status = path.stat()
                        name = path.relative_to(folder).as_posix()
                        state = (status.st_mtime_ns, status.st_size)
                        # Of several hosts' files of one name the newest is meant.
                        if name not in found or state > found[name]:
                            found[name], paths[name] = state, path
        return found, paths

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
