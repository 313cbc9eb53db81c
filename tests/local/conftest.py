"""A local endpoint: a server process of its own, spoken to by boto3 over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local.jobs import Jobs

START_SECONDS, STOP_SECONDS = 60, 60
ROLE = "arn:aws:iam::123456789012:role/service-role/local"
REGION = "us-east-1"


@dataclass
class Endpoint:
    """A server and its folder.

    Attributes:
        home: ``BYOC_HOME``.
        runner: ``process``, ``docker`` or ``auto``.
        environ: Further variables of the server.
        url: Where it answers, once started.
    """

    home: Path
    runner: str = "process"
    environ: dict[str, str] = field(default_factory=dict)
    url: str = ""
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["local", "up", "--port", "0", "--region", REGION, "--runner", self.runner]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "byoc.main", *words],
            # One job at a time, however large the machine.
            env={**environ, "BYOC_HOME": str(self.home), "BYOC_LOCAL_JOBS": "1", **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()  # the address is told once it answers
        assert first.startswith("export AWS_ENDPOINT_URL="), first
        self.url = first.strip().partition("=")[2]

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """SIGTERM; it must end in order."""
        if self._process is not None:
            self._process.terminate()
            self._end(self._process)

    def kill(self) -> None:
        """SIGKILL: what it ran may go on without it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._end(self._process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.wait(STOP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None

    def client(self, service: str) -> Any:
        """A client of boto3, as a user has one with ``AWS_ENDPOINT_URL``."""
        import boto3
        from botocore.config import Config

        make: Any = boto3.client  # its overloads want literal names
        return make(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One for all tests of a module, with the process runner."""
    made = Endpoint(tmp_path_factory.mktemp("home"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def jobs(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Training jobs of the module's endpoint."""
    from tests.local.jobs import Jobs

    return Jobs(endpoint, tmp_path_factory.mktemp("code"))


@pytest.fixture
def own_endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    """One for a test alone, not started: to be killed, restarted, or given variables."""
    made = Endpoint(tmp_path / "home")
    yield made
    made.stop()


def eventually(condition: Any, seconds: float = 20) -> Any:
    """Wait for something true, and return it."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.02)
    return found
