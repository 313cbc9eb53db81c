"""``train`` and ``serve`` as containers of the two images."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from byoc.errors import RunnerError
from byoc.local.runners.base import Running, follow, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.layout import TrainingLayout


class DockerRunner:
    """``train`` and ``serve`` of the two images, as ``docker run IMAGE train`` does."""

    uses_this_environment = False

    def __init__(
        self,
        training_image: str,
        inference_image: str,
        *,
        labels: Mapping[str, str] | None = None,
        gpus: bool = False,
    ) -> None:
        import docker  # noqa: PLC0415 - only this runner needs it

        self._errors = (docker.errors.DockerException, OSError)
        try:
            self._client = docker.from_env()
            self._client.ping()
        except self._errors as error:
            raise RunnerError(f"no Docker engine answers: {error}") from error
        self._training_image, self._inference_image = training_image, inference_image
        self._labels = dict(labels or {})
        self._gpus = gpus and "nvidia" in self._client.info().get("Runtimes", {})
        self.description = f"containers of {training_image} and {inference_image}"

    def train(
        self, layout: TrainingLayout, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Running:
        """Start the training image with the layout's root mounted at ``/opt/ml``."""
        mounts = [f"{layout.root.resolve()}:/opt/ml"]
        for name, folder in layout.channels.items():
            (layout.root / "input" / "data" / name).mkdir(exist_ok=True)
            mounts.append(f"{folder.resolve()}:/opt/ml/input/data/{name}:ro")
        return self._start(self._training_image, "train", mounts, environment, on_line)

    def serve(
        self, model: Path, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Running:
        """Start the inference image with the model folder read-only at ``/opt/ml/model``."""
        mounts = [f"{model.resolve()}:/opt/ml/model:ro"]
        several = model.parent / "models"
        if several.is_dir():  # of a multi-model server
            mounts.append(f"{several.resolve()}:/opt/ml/models:ro")
        ports = {"8080/tcp": ("127.0.0.1", None)}
        return self._start(self._inference_image, "serve", mounts, environment, on_line, ports)

    def _start(
        self,
        image: str,
        word: str,
        mounts: list[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        ports: Mapping[str, Any] | None = None,
    ) -> Running:
        # Files that the container writes into the mounts must belong to the caller.
        root = os.getuid() == 0
        home = {} if root else {"HOME": "/tmp"}  # noqa: S108 - inside the container
        more: dict[str, Any] = {}
        if self._gpus:
            from docker.types import DeviceRequest  # noqa: PLC0415 - of the extra control

            more["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
        try:
            container = self._client.containers.run(
                image,
                word,
                detach=True,
                name=f"byoc-{word}-{uuid.uuid4().hex[:8]}",
                environment={**home, **environment},
                volumes=mounts,
                ports=dict(ports or {}),
                labels=self._labels,
                user=None if root else f"{os.getuid()}:{os.getgid()}",
                **more,
            )
        except self._errors as error:
            raise RunnerError(
                f"cannot start {image}: {error}; build it with: make build"
            ) from error
        return _ContainerRunning(container, on_line)


class _ContainerRunning:
    def __init__(self, container: Any, on_line: Callable[[str], None]) -> None:
        self._container = container
        self._code: int | None = None
        self._reader = follow(lines_of(container.logs(stream=True, follow=True)), on_line)
        container.reload()
        published = container.ports.get("8080/tcp") or [{"HostPort": "0"}]
        self.address = ("127.0.0.1", int(published[0]["HostPort"]))

    def poll(self) -> int | None:
        if self._code is None:
            self._container.reload()
            if self._container.status in {"exited", "dead"}:
                return self.wait()
        return self._code

    def wait(self) -> int:
        if self._code is None:
            self._code = int(self._container.wait()["StatusCode"])
            self._reader.join(timeout=5)
            self._container.remove(force=True)
        return self._code

    def stop(self, seconds: float) -> int:
        if self._code is None:
            self._container.stop(timeout=int(seconds))
        return self.wait()
