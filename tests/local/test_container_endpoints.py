"""Endpoints on the engine: containers of the inference image."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.conftest import Endpoint, eventually
from tests.local.hosted import Hosted, archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.slow]
IMAGE = "sagemaker-byoc-inference:latest"
#: As a registry would name it.
URI = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{IMAGE}"
HANDLER = """
import boto3, json, os, pathlib

def model_fn(model_dir):
    return pathlib.Path(model_dir)

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(ask, model):
    try:
        (model / "written").write_text("x")
        written = True
    except OSError:
        written = False
    names = [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]]
    return {"written": written, "buckets": names, "version": (model / "version").read_text()}
"""


@pytest.fixture(scope="module")
def hosted(docker_cli: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """A server with the docker runner."""
    words = [docker_cli, "image", "inspect", IMAGE]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip(f"the engine has no {IMAGE}; make build")
    server = Endpoint(tmp_path_factory.mktemp("home"), runner="docker")
    server.start()
    yield Hosted(server)
    server.stop()
    assert containers(docker_cli, server.home) == []


def containers(docker_cli: str, home: Path) -> list[str]:
    """Those of a server's folder, running or not."""
    words = [docker_cli, "ps", "--all", "--quiet", "--filter", f"label=byoc.local={home}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def model(hosted: Hosted, name: str, **container: Any) -> None:
    content = {"code/inference.py": HANDLER, "version": name}
    container.setdefault("ModelDataUrl", hosted.put(f"{name}.tar.gz", archive(content)))
    hosted.model(name, **{"Image": URI, **container})
    hosted.config(name, name)


def test_a_container_of_the_image_serves_read_only_finds_s3_and_comes_back(hosted, docker_cli):
    model(hosted, "served")
    (variant,) = hosted.create("served", "served")["ProductionVariants"]
    words = [docker_cli, "image", "inspect", "--format", "{{.Id}}", IMAGE]
    digest = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    (image,) = variant["DeployedImages"]
    assert image["SpecifiedImage"] == URI
    # `make build` has pushed it nowhere, so no registry has given it another.
    assert image["ResolvedImage"] == f"{URI.removesuffix(':latest')}@{digest}"
    answer = hosted.ask("served")
    assert answer == {"written": False, "buckets": ["models"], "version": "served"}
    (container,) = containers(docker_cli, hosted.server.home)
    subprocess.run([docker_cli, "rm", "--force", container], capture_output=True, check=True)

    def again() -> bool:
        try:
            return bool(hosted.ask("served")["version"] == "served")
        except (hosted.runtime.exceptions.ServiceUnavailable, hosted.runtime.exceptions.ModelError):
            return False

    eventually(again, 60)
    assert containers(docker_cli, hosted.server.home) != [container]
    lines = hosted.log_lines("/aws/sagemaker/Endpoints/served")
    assert f"runner docker: image {IMAGE}" in lines
    hosted.sagemaker.delete_endpoint(EndpointName="served")
    eventually(lambda: containers(docker_cli, hosted.server.home) == [])


def test_models_of_a_multi_model_container_are_loaded(hosted):
    for name in ("first", "second"):
        hosted.put(f"many/{name}.tar.gz", archive({"code/inference.py": HANDLER, "version": name}))
    model(hosted, "many", Mode="MultiModel", ModelDataUrl="s3://models/many/")
    hosted.create("many", "many")
    for name in ("first", "second"):
        assert hosted.ask("many", TargetModel=f"{name}.tar.gz")["version"] == name


def test_an_image_that_the_engine_has_no_longer_fails_the_endpoint(hosted, docker_cli):
    subprocess.run([docker_cli, "tag", IMAGE, "absent:1"], check=True)
    model(hosted, "absent", Image="123456789012.dkr.ecr.us-east-1.amazonaws.com/absent:1")
    subprocess.run([docker_cli, "rmi", "absent:1"], capture_output=True, check=True)
    hosted.sagemaker.create_endpoint(EndpointName="absent", EndpointConfigName="absent")
    reason = hosted.settled("absent", "Failed")["FailureReason"]
    assert "the engine has no image" in reason
    assert "absent:1" in reason
