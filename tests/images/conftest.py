"""The two images, built (through the cache) by ``byoc build``, and containers that end.

``BYOC_BASE_IMAGE`` names the base to build on and ``TEST_LANE`` the CUDA lane (cu128 unless set).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from byoc import engine as engines
from byoc.commands.build import default_ca_bundle
from byoc.images import BuildOptions, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from byoc.engine import Engine
    from byoc.images import BuiltImage, Kind

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        needs = {"training_image", "inference_image", "docker_cli"}
        if HERE in item.path.parents and needs & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def builder(docker_cli: str) -> Engine:
    """The engine that builds; its client need not be the first that answers."""
    return engines.find()


def built(kind: Kind, builder: Engine) -> BuiltImage:
    options = BuildOptions(
        kinds=(kind,),
        lane=os.environ.get("TEST_LANE", "cu128"),
        base_image=os.environ.get("BYOC_BASE_IMAGE") or offline_base(builder.cli),
        ca_bundle=default_ca_bundle(),
        progress="quiet",
    )
    return build(options, builder)[0]


def offline_base(cli: str) -> str | None:
    """The offline base image, when someone has made it on this machine."""
    reference = "sagemaker-byoc-base:bookworm"
    inspect = [cli, "image", "inspect", reference]
    done = subprocess.run(inspect, capture_output=True, check=False)
    return reference if done.returncode == 0 else None


@pytest.fixture(scope="session")
def built_training(builder: Engine) -> BuiltImage:
    return built("training", builder)


@pytest.fixture(scope="session")
def built_inference(builder: Engine) -> BuiltImage:
    return built("inference", builder)


@pytest.fixture(scope="session")
def training_image(built_training: BuiltImage) -> str:
    return built_training.tags[0]


@pytest.fixture(scope="session")
def inference_image(built_inference: BuiltImage) -> str:
    return built_inference.tags[0]


@pytest.fixture(params=["training", "inference"])
def built_image(request: pytest.FixtureRequest) -> BuiltImage:
    image: BuiltImage = request.getfixturevalue(f"built_{request.param}")
    return image


@pytest.fixture
def image(built_image: BuiltImage) -> str:
    return built_image.tags[0]


@pytest.fixture
def config(docker_cli: str, image: str) -> dict[str, Any]:
    """What ``docker image inspect`` tells about the image."""
    done = subprocess.run(
        [docker_cli, "image", "inspect", image], capture_output=True, text=True, check=True
    )
    inspected: dict[str, Any] = json.loads(done.stdout)[0]
    return inspected


class Docker:
    """Containers of one test; whatever still runs at its end is removed."""

    def __init__(self, cli: str) -> None:
        self.cli = cli
        self.names: list[str] = []

    def __call__(
        self, *arguments: str, check: bool = False, timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.cli, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=check,
        )

    def name(self) -> str:
        self.names.append(f"byoc-test-{uuid.uuid4().hex[:12]}")
        return self.names[-1]

    def run(
        self, image: str, *command: str, options: tuple[str, ...] = (), timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """``docker run --rm`` to its end."""
        return self(
            "run", "--rm", "--name", self.name(), *options, image, *command,
            timeout_seconds=timeout_seconds,
        )  # fmt: skip

    def start(self, image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """``docker run --detach``; returns the container's name."""
        name = self.name()
        self("run", "--detach", "--name", name, *options, image, *command, check=True)
        return name

    def python(
        self, image: str, program: str, *arguments: str, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a program text with the first python3 on PATH."""
        return self.run(image, "python3", "-c", program, *arguments, options=options)

    def logs(self, name: str) -> str:
        done = self("logs", name)
        return done.stdout + done.stderr

    def wait(self, name: str) -> int:
        return int(self("wait", name, check=True).stdout)

    def remove(self) -> None:
        if self.names:
            self("rm", "--force", "--volumes", *self.names)


@pytest.fixture
def docker(docker_cli: str) -> Iterator[Docker]:
    running = Docker(docker_cli)
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(running.remove)
        yield running


@pytest.fixture
def opt_ml(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder to mount at /opt/ml, as the platform lays it out for a job."""

    def make(
        hyperparameters: dict[str, str] | None = None,
        channels: dict[str, dict[str, str]] | None = None,
        name: str = "ml",
    ) -> Path:
        root = tmp_path / name
        for folder in ("input/config", "input/data", "model", "output/data"):
            (root / folder).mkdir(parents=True)
        documents = {
            "hyperparameters": hyperparameters or {},
            "resourceconfig": {
                "current_host": "algo-1",
                "hosts": ["algo-1"],
                "network_interface_name": "eth0",
            },
            "inputdataconfig": {one: {"TrainingInputMode": "File"} for one in channels or {}},
        }
        for document, content in documents.items():
            (root / "input/config" / f"{document}.json").write_text(json.dumps(content))
        for channel, files in (channels or {}).items():
            (root / "input/data" / channel).mkdir()
            for file, text in files.items():
                (root / "input/data" / channel / file).write_text(text)
        return root

    return make
