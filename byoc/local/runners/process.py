"""``train`` and ``serve`` as processes of this environment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from byoc.errors import RunnerError
from byoc.local.runners.base import Running, follow, inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc.local.layout import TrainingLayout


class ProcessRunner:
    """``train`` and ``serve`` of the environment that this interpreter belongs to."""

    description = "processes of this environment (no container)"
    uses_this_environment = True

    def __init__(self) -> None:
        self._bin = Path(sys.executable).parent

    def train(
        self, layout: TrainingLayout, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Running:
        """Start ``train`` with the layout's root in place of ``/opt/ml``."""
        for name, folder in layout.channels.items():
            (layout.root / "input" / "data" / name).symlink_to(folder.resolve())
        return self._start("train", {**environment, "BYOC_ROOT": str(layout.root)}, on_line)

    def serve(
        self, model: Path, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Running:
        """Start ``serve`` on a free port of the loopback interface."""
        if model.name != "model":
            raise RunnerError(f"the model folder must be called model, not {model.name}")
        port = _free_port()
        return self._start(
            "serve",
            {
                "BYOC_HOST": "127.0.0.1",
                "SAGEMAKER_BIND_TO_PORT": str(port),
                **environment,
                "BYOC_ROOT": str(model.parent),
            },
            on_line,
            port,
        )

    def _start(
        self,
        word: str,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        port: int = 0,
    ) -> Running:
        program = self._bin / word
        if not program.is_file():
            raise RunnerError(f"{program} is missing; run: make setup")
        process = subprocess.Popen(
            [str(program)],
            env={**inherited(), **environment, "PATH": f"{self._bin}:{os.environ.get('PATH', '')}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal reaches us alone; we stop it in order
        )
        return _ProcessRunning(process, on_line, port)


class _ProcessRunning:
    def __init__(
        self, process: subprocess.Popen[bytes], on_line: Callable[[str], None], port: int
    ) -> None:
        self.address = ("127.0.0.1", port)
        self._process = process
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self._output = process.stdout
        self._reader = follow(self._output, on_line)

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        code = self._process.wait()
        self._reader.join(timeout=5)
        if not self._reader.is_alive():  # a program that outlives its parent may hold it open
            self._output.close()
        return code

    def stop(self, seconds: float) -> int:
        if self.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        return self.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
