"""Models of a multi-model container: fetched and loaded when they are asked for."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from byoc.local.hosting.model_data import fetch_archive, remove

if TYPE_CHECKING:
    from pathlib import Path

    from byoc.local.hosting.connections import Reply
    from byoc.local.hosting.container import Container

LOAD_SECONDS = 60.0
NOT_ENOUGH_MEMORY = 507


class LoadError(Exception):
    """The container did not load a model.

    Attributes:
        reply: Its answer.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class ModelShelf:
    """The models of one variant, below a prefix of S3.

    Args:
        prefix: ``s3://bucket/prefix``.
        root: Its ``models`` stands at ``/opt/ml/models``.
        s3: A client.
    """

    def __init__(self, prefix: str, root: Path, s3: Any) -> None:
        self._prefix = prefix if prefix.endswith("/") else f"{prefix}/"
        self._folder, self._s3 = root / "models", s3
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        #: For each start of a container: what it has loaded, the least recently asked first.
        self._loaded: dict[tuple[Container, int], dict[str, None]] = {}

    def path(self, target: str, container: Container) -> str:
        """Where a container answers for a model; it is loaded first if it has to be.

        Args:
            target: The object's key below the prefix, such as ``first.tar.gz``.
            container: One that serves.

        Raises:
            ModelDataError: There is no such object.
            LoadError: The container refuses it.
            ExchangeError: The container gave no answer.
        """
        name = hashlib.sha256(target.encode()).hexdigest()[:32]
        start = (container, container.starts)
        with self._lock:
            loaded = self._loaded.setdefault(start, {})
            lock = self._locks.setdefault(name, threading.Lock())
            if name in loaded:
                loaded[name] = loaded.pop(name)
                return _invoke(name)
        with lock:
            if name not in loaded:
                folder = self._folder / name / "model"
                if not folder.is_dir():
                    fetch_archive(self._prefix + target, folder, self._s3)
                self._load(container, name, loaded)
        return _invoke(name)

    def forget(self, target: str, container: Container) -> None:
        """The container says that it does not have the model (any more)."""
        name = hashlib.sha256(target.encode()).hexdigest()[:32]
        with self._lock:
            self._loaded.get((container, container.starts), {}).pop(name, None)

    def remove(self) -> None:
        """Delete the files."""
        remove(self._folder)

    def _load(self, container: Container, name: str, loaded: dict[str, None]) -> None:
        body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"}).encode()
        headers = {"Content-Type": "application/json"}
        while True:
            reply = container.connections.ask("POST", "/models", headers, body, LOAD_SECONDS)
            if reply.status < 300 or reply.status == 409:
                with self._lock:
                    loaded[name] = None
                return
            with self._lock:
                oldest = next(iter(loaded), None)
                if oldest is not None:
                    del loaded[oldest]
            if reply.status != NOT_ENOUGH_MEMORY or oldest is None:
                raise LoadError(reply)
            container.connections.ask(
                "DELETE", f"/models/{quote(oldest, safe='')}", {}, b"", LOAD_SECONDS
            )


def _invoke(name: str) -> str:
    return f"/models/{name}/invoke"
