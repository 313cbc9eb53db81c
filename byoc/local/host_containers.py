"""Hosts of a job as containers on a network of their own, named as the platform names them."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from byoc.local import relay
from byoc.local.exports import variables
from byoc.local.hosts import End, Host, HostError, Started
from byoc.local.runners.base import follow, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: Whose a container or a network is: the endpoint's folder, and its process.
LABEL, SERVER_LABEL = "byoc.local", "byoc.local.server"
#: Instance types with GPUs that a CUDA image runs on.
_GPU = re.compile(r"ml\.(?:p|g)\d")
_OUTPUT_SECONDS = 5
KILLED = 137


class ContainerCluster:
    """Hosts that are containers.

    Args:
        home: The endpoint's folder.
        url: The endpoint.
        region: Its region.
        image: The engine's image.
        job: The job's name.
        count: How many hosts there are.
        isolated: Whether the containers reach nothing but each other.

    Raises:
        HostError: The engine does not make the network.
    """

    interface = "eth0"

    def __init__(
        self,
        home: Path,
        url: str,
        region: str,
        image: str,
        job: str,
        count: int,
        *,
        isolated: bool = False,
    ) -> None:
        import docker  # noqa: PLC0415 - of the extra control

        self._errors = (docker.errors.DockerException, OSError)
        self.names = [f"algo-{number}" for number in range(1, count + 1)]
        self._image, self._job = image, job
        self._labels = {LABEL: str(home), SERVER_LABEL: str(os.getpid())}
        self._containers: list[Any] = []
        self._relay: relay.Relay | None = None
        self._network: Any = None
        self._client: Any = None
        try:
            self._client = docker.from_env()
            self._network = self._client.networks.create(
                f"byoc-{job}-{uuid.uuid4().hex[:8]}",
                driver="bridge",
                internal=isolated,
                labels=self._labels,
            )
            self._network.reload()
            self._gpus = "nvidia" in self._client.info().get("Runtimes", {})
        except self._errors as error:
            self.close()
            raise HostError(f"the Docker engine made no network: {error}") from error
        self.variables: Mapping[str, str] = {}
        if not isolated:
            self.variables = variables(self._address(url), region)

    def start(
        self, host: Host, on_line: Callable[[str], None], on_end: Callable[[End], None]
    ) -> Started:
        """Start a container."""
        # Files that the container writes into the mounts must belong to the caller.
        root = os.getuid() == 0
        more: dict[str, Any] = {} if root else {"user": f"{os.getuid()}:{os.getgid()}"}
        home = {} if root else {"HOME": "/tmp"}  # noqa: S108 - inside the container
        if host.entrypoint:
            more["entrypoint"] = [*host.entrypoint]
        if self._gpus and _GPU.match(host.instance_type):
            more["device_requests"] = [self._all_gpus()]
        for bind in host.binds:
            if bind.target.startswith("/opt/ml/"):
                inside = host.root / bind.target.removeprefix("/opt/ml/")
                inside.mkdir(parents=True, exist_ok=True)
        volumes = [f"{host.root}:/opt/ml"]
        volumes += [f"{b.source}:{b.target}{':ro' if b.read_only else ''}" for b in host.binds]
        aliases = self._client.api.create_endpoint_config(aliases=[host.name])
        try:
            container = self._client.containers.create(
                self._image,
                [*host.arguments] or None,
                name=f"byoc-{self._job}-{host.name}-{uuid.uuid4().hex[:8]}",
                environment={**home, **host.environment},
                volumes=volumes,
                labels=self._labels,
                network=self._network.name,
                networking_config={self._network.name: aliases},
                **more,
            )
            self._containers.append(container)
            container.start()
        except self._errors as error:
            raise HostError(f"the container of {self._image} cannot be started: {error}") from error
        return _Started(container, self._errors, on_line, on_end)

    def close(self) -> None:
        """Remove containers, network and relay."""
        for container in self._containers:
            with contextlib.suppress(*self._errors):
                container.remove(force=True)
        if self._network is not None:
            with contextlib.suppress(*self._errors):
                self._network.remove()
        if self._relay is not None:
            self._relay.close()
        if self._client is not None:
            self._client.close()

    def _address(self, url: str) -> str:
        """Where a container finds this endpoint."""
        gateway = relay.gateway(self._network.attrs)
        try:
            self._relay = relay.Relay(gateway, urlsplit(url).port or 80)
        except OSError as error:
            self.close()
            raise HostError(
                f"the gateway {gateway or 'of the network'} is no address of this machine "
                f"({error.strerror}), so containers could not reach the endpoint; is the Docker "
                "engine on another machine?"
            ) from error
        return self._relay.url

    @staticmethod
    def _all_gpus() -> Any:
        from docker.types import DeviceRequest  # noqa: PLC0415 - of the extra control

        return DeviceRequest(count=-1, capabilities=[["gpu"]])


class _Started:
    def __init__(
        self,
        container: Any,
        errors: tuple[type[Exception], ...],
        on_line: Callable[[str], None],
        on_end: Callable[[End], None],
    ) -> None:
        self._container, self._errors, self._on_end = container, errors, on_end
        self._asked = False
        self._reader = follow(self._lines(), on_line)
        threading.Thread(target=self._wait, name="host", daemon=True).start()

    def terminate(self) -> None:
        self._signal("SIGTERM")

    def kill(self) -> None:
        self._asked = True
        self._signal("SIGKILL")

    def _signal(self, name: str) -> None:
        with contextlib.suppress(*self._errors):
            self._container.kill(signal=name)

    def _lines(self) -> Any:
        with contextlib.suppress(*self._errors):
            yield from lines_of(self._container.logs(stream=True, follow=True))

    def _wait(self) -> None:
        try:
            code = int(self._container.wait(timeout=None)["StatusCode"])
        except Exception as error:  # noqa: BLE001 - of the engine, or of the connection to it
            self._on_end(
                End(-1, f"the Docker engine ended, or was not to be reached: {_brief(error)}")
            )
            return
        self._reader.join(_OUTPUT_SECONDS)
        self._on_end(End(code, self._words(code)))

    def _words(self, code: int) -> str:
        """What the engine knows of an end that was not the program's doing."""
        import docker  # noqa: PLC0415 - of the extra control

        if code != KILLED or self._asked:
            return ""
        try:
            self._container.reload()
        except docker.errors.NotFound:
            return "the container was removed from outside"
        except self._errors:
            return ""
        if self._container.attrs.get("State", {}).get("OOMKilled"):
            return "the container was killed for want of memory"
        return "the container was killed from outside, or a process in it for want of memory"


def remove_leftovers(home: Path) -> None:
    """Remove containers and networks that earlier servers on this folder have left behind."""
    import docker  # noqa: PLC0415 - of the extra control

    errors = (docker.errors.DockerException, OSError)
    ours: Any = {"label": f"{LABEL}={home}"}
    with contextlib.suppress(*errors):
        client = docker.from_env(timeout=10)
        for container in client.containers.list(all=True, filters=ours):
            if container.labels.get(SERVER_LABEL) != str(os.getpid()):
                with contextlib.suppress(*errors):
                    container.remove(force=True)
        for network in client.networks.list(filters=ours):
            labels = network.attrs.get("Labels") or {}
            if labels.get(SERVER_LABEL) != str(os.getpid()):
                with contextlib.suppress(*errors):
                    network.remove()


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
