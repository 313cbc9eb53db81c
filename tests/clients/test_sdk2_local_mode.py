"""Local mode of SageMaker Python SDK v2, which runs both images with docker-compose by itself.

No endpoint runs them here; one is only where the SDK finds its S3.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.conftest import Client
from tests.local.conftest import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]

TRAINING_IMAGE, INFERENCE_IMAGE = (
    "sagemaker-byoc-training:latest",
    "sagemaker-byoc-inference:latest",
)
#: Where compose notes the folder that a container came of.
FOLDER = "com.docker.compose.project.working_dir"


@pytest.fixture(scope="module")
def compose(real_images: str) -> str:
    """The folder of programs in which the SDK finds docker and compose, in this order."""
    if shutil.which("docker-compose") is None:
        words = [real_images, "compose", "version"]
        if subprocess.run(words, capture_output=True, check=False).returncode != 0:
            pytest.skip("local mode needs docker compose")
    return os.path.dirname(real_images)  # noqa: PTH120 - a word of PATH


@pytest.fixture(scope="module")
def found(
    environments: Path,
    real_images: str,
    compose: str,
    digits_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """What the program has found."""
    home = tmp_path_factory.mktemp("user")
    defaults = home / "sagemaker.yaml"
    defaults.write_text(
        'SchemaVersion: "1.0"\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n'
    )
    with socket.create_server(("", 0)) as one:
        port = one.getsockname()[1]
    storage = Endpoint(tmp_path_factory.mktemp("home"))
    storage.start()
    try:
        yield Client(environments / "sdk2", storage, home).program(
            "sdk2_local.py", digits_folder, TRAINING_IMAGE, INFERENCE_IMAGE, str(port),
            PATH=f"{environments / 'sdk2' / 'bin'}:{compose}:{os.environ['PATH']}",
            SAGEMAKER_USER_CONFIG_OVERRIDE=str(defaults),
        )  # fmt: skip
    finally:
        storage.stop()
        remove_containers(real_images, home)


def remove_containers(cli: str, home: Path) -> None:
    """The SDK leaves its containers behind, stopped or, after a failure, running."""
    words = ["ps", "--all", "--filter", f"label={FOLDER}"]
    form = f'{{{{.ID}}}} {{{{.Label "{FOLDER}"}}}}'
    listed = subprocess.run(
        [cli, *words, "--format", form], capture_output=True, text=True, check=True
    )
    lines = [line.split(" ", 1) for line in listed.stdout.splitlines()]
    if mine := [one for one, folder in lines if folder.startswith(f"{home}/")]:
        subprocess.run([cli, "rm", "--force", *mine], capture_output=True, check=True)


def test_fit_trains_in_the_image_and_stores_the_model_in_s3(found):
    assert found["epochs"] == 3
    assert found["model_data"] == f"s3://sdk2-local/models/{found['job']}/output/model.tar.gz"


def test_deploy_serves_in_the_image_and_knows_the_digit(found):
    assert found["answer"] == found["digit"]
    assert found["right"] > 0.9


def test_a_transformer_answers_each_line(found):
    assert found["transformed"] > 0.9


def test_two_instances_form_a_process_group(found):
    assert found["ranks"] == [
        "[0, 2, 3.0, 2] ['--rate', '0.5']",
        "[1, 2, 3.0, 2] ['--rate', '0.5']",
    ]
    assert found["sum"] == "3.0 a word"


def test_a_program_that_fails_is_an_exception_and_its_reason_is_among_the_output(found):
    assert found["failure"]["kind"] == "RuntimeError"
    assert "Process exited with code: 1" in found["failure"]["words"]
    assert found["said"]
    assert found["reason"].startswith("ValueError: these numbers make no sense")
