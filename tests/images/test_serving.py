"""The inference image under the conditions of the platform."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import urllib.error
import urllib.request
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.images.conftest import Docker

HANDLER = """
import os, torch
def model_fn(model_dir):
    print("device", "cuda" if torch.cuda.is_available() else "cpu", flush=True)
    return torch.nn.Identity()
"""
START_SECONDS = 120


def model(tmp_path: Path, handler: str = HANDLER) -> Path:
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "code/inference.py").write_text(handler)
    for path in (tmp_path, folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


class Server:
    """A container that serves on a port of this machine."""

    def __init__(self, docker: Docker, name: str, port: int = 8080) -> None:
        self.docker, self.name = docker, name
        published = docker("port", name, f"{port}/tcp", check=True).stdout.split()[0]
        self.url = f"http://127.0.0.1:{published.rpartition(':')[2]}"

    def request(
        self, path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=body, headers=named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait_ready(self) -> float:
        """Seconds until /ping is 200."""
        started = time.monotonic()
        while time.monotonic() - started < START_SECONDS:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, RemoteDisconnected):
                if self.request("/ping")[0] == 200:
                    return time.monotonic() - started
            running = self.docker(
                "inspect", "--format", "{{.State.Running}}", self.name, check=True
            )
            assert running.stdout.strip() == "true", self.docker.logs(self.name)
            time.sleep(0.05)  # polling a container, as the platform does
        pytest.fail(f"no 200 from /ping in {START_SECONDS} s:\n{self.docker.logs(self.name)}")

    def ask(self, rows: Any) -> Any:
        status, body = self.request(
            "/invocations", json.dumps(rows).encode(), Content_Type="application/json"
        )
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
def serve(docker: Docker, inference_image: str) -> Callable[..., Server]:
    def start(folder: Path | None, *options: str, command: tuple[str, ...] = ("serve",)) -> Server:
        mounted = ("--volume", f"{folder}:/opt/ml/model:ro") if folder else ()
        name = docker.start(
            inference_image, *command, options=("-p", "127.0.0.1::8080", *mounted, *options)
        )
        return Server(docker, name)

    return start


@pytest.mark.contract(56, 57, 60, 75, 97)
def test_container_serves_a_handler_from_a_read_only_model(serve, tmp_path) -> None:
    server = serve(model(tmp_path))
    server.wait_ready()
    assert server.ask([[1.5, 2.0]]) == [[1.5, 2.0]]
    logs = server.docker.logs(server.name)
    assert "device cpu" in logs
    assert "Traceback" not in logs


@pytest.mark.contract(44)
def test_default_command_serves(serve, tmp_path) -> None:
    server = serve(model(tmp_path), command=())
    server.wait_ready()
    assert server.ask([[1.0]]) == [[1.0]]


@pytest.mark.contract(92, 94)
def test_serverless_profile_serves(serve, tmp_path) -> None:
    server = serve(
        model(tmp_path),
        "--user", "12345:54321", "--read-only", "--tmpfs", "/tmp",
        "--memory", "1g", "--memory-swap", "1g",
    )  # fmt: skip
    assert server.wait_ready() < 60
    assert server.ask([[3.0]]) == [[3.0]]


@pytest.mark.contract(93)
def test_machine_without_shared_memory_serves(serve, tmp_path) -> None:
    server = serve(
        model(tmp_path), "--tmpfs", "/dev/shm:ro,size=4k", "--tmpfs", "/tmp", "--read-only"
    )
    server.wait_ready()
    assert server.ask([[3.0]]) == [[3.0]]


@pytest.mark.contract(81, 82, 83, 92)
def test_multi_model_container_loads_within_its_memory_and_stops_with_zero(
    serve, tmp_path, docker
) -> None:
    handler = """
import torch
def model_fn(model_dir):
    return torch.zeros(60_000_000)
def predict_fn(data, model):
    return data + model[:1]
"""
    names = ("one", "two", "three", "four", "five", "six")
    for name in names:
        folder = model(tmp_path / "models" / name, handler)
        # The archive's size announces what the model will take; it is not read.
        with (folder / "weights.bin").open("wb") as file:
            file.truncate(80_000_000)
    tmp_path.chmod(0o755)
    server = serve(
        None, "--volume", f"{tmp_path / 'models'}:/opt/ml/models:ro",
        "--env", "SAGEMAKER_MULTI_MODEL=true", "--read-only", "--tmpfs", "/tmp",
        "--memory", "1g", "--memory-swap", "1g",
    )  # fmt: skip
    server.wait_ready()
    assert server.request("/models") == (200, b'{"models":[]}')
    bodies = {n: {"model_name": n, "url": f"/opt/ml/models/{n}/model"} for n in names}
    statuses = [server.request("/models", json.dumps(bodies[n]).encode())[0] for n in names]
    loaded = statuses.count(200)
    # A limit of 1 GiB takes some of them; those that do not fit are refused, nothing is killed.
    assert 1 <= loaded < len(names)
    assert statuses == [200] * loaded + [507] * (len(names) - loaded)
    assert server.request("/ping")[0] == 200
    for name in names[:loaded]:
        answer = server.request(
            f"/models/{name}/invoke", b"[[1.5]]", Content_Type="application/json"
        )
        assert answer == (200, b"[[1.5]]")
    assert server.request("/models/one", method="DELETE")[0] == 200
    assert server.request("/models", json.dumps(bodies["six"]).encode())[0] == 200
    docker("stop", "--time", "30", server.name, check=True)
    assert docker.wait(server.name) == 0
    assert "Traceback" not in docker.logs(server.name)


@pytest.mark.contract(56, 69)
def test_sigterm_to_process_one_ends_with_zero_within_25_seconds(serve, tmp_path, docker) -> None:
    server = serve(model(tmp_path))
    server.wait_ready()
    started = time.monotonic()
    docker("stop", "--time", "30", server.name, check=True)
    assert docker.wait(server.name) == 0
    assert time.monotonic() - started < 25


@pytest.mark.contract(59)
def test_model_that_cannot_load_ends_the_container_with_the_cause_last(
    docker, inference_image, tmp_path
) -> None:
    handler = "def model_fn(model_dir):\n    raise RuntimeError('the weights are missing')\n"
    name = docker.start(
        inference_image, "serve",
        options=("--volume", f"{model(tmp_path, handler)}:/opt/ml/model:ro"),
    )  # fmt: skip
    assert docker.wait(name) not in (0, 137)
    assert "the weights are missing" in docker.logs(name).strip().splitlines()[-1]


@pytest.mark.contract(68)
def test_other_port_is_used_when_the_platform_names_one(docker, inference_image, tmp_path) -> None:
    name = docker.start(
        inference_image, "serve",
        options=(
            "-p", "127.0.0.1::9001", "--volume", f"{model(tmp_path)}:/opt/ml/model:ro",
            "--env", "SAGEMAKER_BIND_TO_PORT=9001",
            "--env", "SAGEMAKER_SAFE_PORT_RANGE=9002-9010",
        ),
    )  # fmt: skip
    server = Server(docker, name, 9001)
    server.wait_ready()
    listening = """
import glob
rows = [line.split() for file in glob.glob('/proc/1/net/tcp*') for line in open(file)]
print(sorted({int(row[1].rpartition(':')[2], 16) for row in rows if row[3] == '0A'}))
"""
    found = docker("exec", name, "python3", "-c", listening, check=True)
    assert found.stdout.strip() == "[9001]"


@pytest.mark.slow
@pytest.mark.contract(1, 39)
def test_model_trained_by_one_image_is_served_by_the_other(
    docker: Docker, training_image: str, serve, opt_ml, tmp_path
) -> None:
    from byoc.packaging import pack, unpack
    from examples.demo import channel

    root = opt_ml({"epochs": "1", "seed": "1"})
    files, _ = channel.prepare("digits", tmp_path / "data")
    shutil.copytree(files, root / "input/data/training")
    (root / "input/config/inputdataconfig.json").write_text('{"training": {}}')
    done = docker.run(
        training_image, "train", options=("--volume", f"{root}:/opt/ml", "--network", "none")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Test set: Average loss" in done.stdout
    archive = tmp_path / "model.tar.gz"
    pack(root / "model", archive)
    served = tmp_path / "served"
    unpack(archive, served, read_only=True)
    tmp_path.chmod(0o755)
    server = serve(served)
    server.wait_ready()
    (answer,) = server.ask([[[[0.0] * 28] * 28]])
    assert len(answer) == 10
