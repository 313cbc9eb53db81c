"""How a container that serves is started: as a process of this environment, or by the engine."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from byoc.errors import RunnerError
from byoc.local import exports, images, orphans, standing_in
from byoc.local.host_containers import LABEL, SERVER_LABEL
from byoc.local.relay import Relay, gateway
from byoc.local.runners.docker import DockerRunner
from byoc.local.runners.process import ProcessRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from byoc.local.actions import Context
    from byoc.local.runners.base import Running

#: Contract section 7.1: for the first 200 of ``/ping``.
START_SECONDS = 480.0
#: Instance types with GPUs that a CUDA image runs on.
_GPU = re.compile(r"ml\.(?:p|g)\d")


class LaunchError(Exception):
    """It cannot be started: words for ``FailureReason``."""


@dataclass(frozen=True)
class Program:
    """What is run.

    Attributes:
        context: Of the endpoint whose S3 and logs it is to find.
        image: As the request names it.
        runner: ``auto``, ``docker`` or ``process``.
        root: Stands for ``/opt/ml``; holds ``model``.
        environment: Of the container.
        start_seconds: Until the first 200 of ``/ping``.
        instance_type: Says whether it gets this machine's GPUs.
    """

    context: Context
    image: str
    runner: str
    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = START_SECONDS
    instance_type: str = ""


class Launched:
    """What was started.

    Attributes:
        running: The program.
        digest: Of its image; empty for a process.
    """

    def __init__(self, running: Running, clean: Callable[[], None], digest: str = "") -> None:
        self.running, self._clean, self.digest = running, clean, digest

    def end(self, seconds: float) -> None:
        """SIGTERM, after ``seconds`` SIGKILL; and whatever else belongs to it."""
        try:
            self.running.stop(seconds)
        finally:
            self._clean()


def launch(program: Program, on_line: Callable[[str], None]) -> Launched:
    """Start it; what stands for its image is told as its first line.

    Raises:
        LaunchError: There is no such image, or the engine refuses.
    """
    try:
        chosen = images.choose(program.image, program.runner)
        on_line(f"byoc: {chosen.words}")
        if chosen.image is None:
            return _process(program, on_line)
        return _container(program, chosen.image, chosen.digest, on_line)
    except (images.ImageError, RunnerError, OSError) as error:
        raise LaunchError(f"The container cannot be started: {error}.") from error


def _process(program: Program, on_line: Callable[[str], None]) -> Launched:
    context = program.context
    # Processes that leave its group, or outlive it, are found by this.
    mark = orphans.mark(context.home.root, "serve", secrets.token_hex(8))
    environment = {
        **standing_in.defaults(),
        **exports.variables(context.url, context.region),
        **program.environment,
        orphans.MARK: mark,
    }
    running = ProcessRunner().serve(program.root / "model", environment, on_line)
    return Launched(running, lambda: orphans.end(mark))


def _container(
    program: Program, image: str, digest: str, on_line: Callable[[str], None]
) -> Launched:
    context = program.context
    with contextlib.ExitStack() as stack:
        relay = _relay(context.url, on_line)
        environment = dict(program.environment)
        if relay is not None:
            stack.callback(relay.close)
            environment = {**exports.variables(relay.url, context.region), **environment}
        runner = DockerRunner(
            image,
            image,
            labels={LABEL: str(context.home.root), SERVER_LABEL: str(os.getpid())},
            gpus=bool(_GPU.match(program.instance_type)),
        )
        running = runner.serve(program.root / "model", environment, on_line)
        return Launched(running, stack.pop_all().close, digest)


def _relay(url: str, on_line: Callable[[str], None]) -> Relay | None:
    """The endpoint as containers of the engine's own network see it."""
    import docker  # noqa: PLC0415 - of the extra control

    try:
        network: Any = docker.from_env(timeout=5).networks.get("bridge")
        return Relay(gateway(network.attrs), urlsplit(url).port or 80)
    except (docker.errors.DockerException, OSError) as error:
        on_line(f"containers cannot reach the local endpoint from here: {error}")
        return None
