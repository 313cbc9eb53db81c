"""Clients that nobody here wrote, each in an environment of its own, against a local endpoint."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from examples.demo import channel
from tests.local.conftest import REGION, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.inside import Inside
    from tests.local.hosted import Hosted

PROGRAMS = Path(__file__).with_name("programs")
REGISTRY = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
TRAINING_IMAGE = f"{REGISTRY}/sagemaker-byoc-training:latest"
INFERENCE_IMAGE = f"{REGISTRY}/sagemaker-byoc-inference:latest"
PROGRAM_SECONDS = 600


@dataclass(frozen=True)
class Client:
    """An environment with a client, pointed at an endpoint as its user would.

    Attributes:
        environment: The folder of the environment.
        endpoint: Where its calls go: nothing but ``AWS_ENDPOINT_URL`` says so.
        home: Its ``HOME`` and working directory, empty at first.
    """

    environment: Path
    endpoint: Endpoint
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        """The variables that ``byoc local env`` prints, and nothing else of AWS."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {
            **kept,
            "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "AWS_ENDPOINT_URL": self.endpoint.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def run(self, *words: str | Path, **variables: str) -> str:
        """Run a command with the environment's programs; what it prints.

        Raises:
            AssertionError: it failed; with all it has said.
        """
        done = subprocess.run(
            list(map(str, words)),
            cwd=self.home,
            env={**self.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
        return done.stdout

    def program(self, name: str, *words: str | Path, **variables: str) -> Any:
        """Run a program of ``programs/`` with the environment's Python; its last line, JSON."""
        said = self.run(self.environment / "bin" / "python", PROGRAMS / name, *words, **variables)
        return json.loads(said.splitlines()[-1])


@pytest.fixture(scope="session")
def environments() -> Path:
    """The folder that ``tests/clients/make-clients`` has made."""
    folder = os.environ.get("BYOC_CLIENTS")
    if not folder:
        pytest.skip(
            "no clients here; tests/clients/make-clients makes them, BYOC_CLIENTS names them"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training channel: 1,437 + 360 digits in MNIST's four files, no network needed."""
    return channel.prepare("digits", tmp_path_factory.mktemp("channel"))[0]


@pytest.fixture(scope="session")
def real_images(docker_cli: str) -> str:
    """The client of an engine that has both images."""
    for uri in (TRAINING_IMAGE, INFERENCE_IMAGE):
        name = uri.partition("/")[2]
        words = [docker_cli, "image", "inspect", name]
        if subprocess.run(words, capture_output=True, check=False).returncode != 0:
            pytest.skip(f"the engine has no {name}; make build")
    return docker_cli


@pytest.fixture(
    scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)]
)
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """A fresh one for all tests of a module, once with each runner."""
    if request.param == "docker":
        request.getfixturevalue("real_images")
    made = Endpoint(tmp_path_factory.mktemp("home"), runner=request.param)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A server in this process."""
    from tests.clients.inside import Inside

    made = Inside(tmp_path_factory.mktemp("inside"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """A server of its own, with an endpoint that is being created."""
    from tests.clients.inside import put_no_manifest
    from tests.local.hosted import Hosted

    made = Endpoint(tmp_path_factory.mktemp("home"))
    made.start()
    found = Hosted(made)
    put_no_manifest(found)
    found.model("real")
    found.config("real", "real")
    yield found
    made.stop()
