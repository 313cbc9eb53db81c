"""Real servers on free ports, real models, plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

START_DEADLINE_S = 300.0


@dataclass(frozen=True)
class Answer:
    """A response, read completely."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        message: str = self.json["error"]["message"]
        return message


class Server:
    """One ``serve`` process; its log is read all the time."""

    def __init__(self, root: Path, environ: Mapping[str, str], command: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.root = root
        variables = {
            **{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
            "BYOC_ROOT": str(root),
            "BYOC_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
            **environ,
        }
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            self.lines.extend(line.rstrip("\n") for line in iter(stream.readline, ""))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
        **options: Any,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}), **options)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), names)

    def ping(self, timeout: float = 2) -> Answer | None:
        """The answer, or None when nobody listens."""
        try:
            return self.request("GET", "/ping", timeout=timeout)
        except (ConnectionError, http.client.HTTPException):
            return None

    def invoke(
        self,
        body: Any,
        content_type: str | None = "application/json",
        accept: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        sent = dict(headers or {})
        if content_type is not None:
            sent["Content-Type"] = content_type
        if accept is not None:
            sent["Accept"] = accept
        return self.request("POST", "/invocations", body, sent, timeout)

    def wait_until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s; log:\n{self.log}"
            time.sleep(0.01)

    def wait_ready(self) -> Server:
        def ready() -> bool:
            assert self.process.poll() is None, f"serve ended; log:\n{self.log}"
            answer = self.ping()
            return answer is not None and answer.status == 200

        self.wait_until(ready, START_DEADLINE_S)
        return self

    def wait_end(self, seconds: float = START_DEADLINE_S) -> int:
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def terminate(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        self.process.send_signal(number)
        return self.wait_end(seconds)

    def workers(self) -> list[int]:
        """Processes that have torch mapped: those that hold a model."""
        return [pid for pid in children(self.process.pid) if "libtorch" in maps(pid)]

    @staticmethod
    def maps_torch(pid: int) -> bool:
        """Whether a process has torch in its memory."""
        return "libtorch" in maps(pid)

    def kill(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]
    return []


def maps(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/maps").read_text()
    return ""


@pytest.fixture(scope="session")
def torchscript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Doubles its input and adds the mean of each row: [N, 4] -> [N, 4]."""
    import torch

    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x + x.mean(dim=1, keepdim=True) * torch.ones(1, 4)

    path = tmp_path_factory.mktemp("torchscript") / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Double(), torch.zeros(2, 4)).save(str(path))
    return path


@pytest.fixture(scope="session")
def serve_command() -> list[str]:
    """The installed command."""
    command = Path(sys.executable).with_name("serve")
    assert command.exists(), "install the project: pip install -e ."
    return [str(command)]


@pytest.fixture
def model_root(tmp_path: Path) -> Callable[..., Path]:
    """Makes a BYOC_ROOT with a handler and further files in its model directory."""

    def make(handler: str | None = None, **files: bytes) -> Path:
        model = tmp_path / "ml" / "model"
        (model / "code").mkdir(parents=True)
        if handler is not None:
            (model / "code" / "inference.py").write_text(textwrap.dedent(handler))
        for name, content in files.items():
            (model / name.replace("__", ".")).write_bytes(content)
        return tmp_path / "ml"

    return make


@pytest.fixture
def start(serve_command: list[str]) -> Iterator[Callable[..., Server]]:
    """Starts servers; ends them all."""
    servers: list[Server] = []

    def begin(root: Path, command: list[str] | None = None, **environ: str) -> Server:
        server = Server(root, environ, command or serve_command)
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def server_class() -> type[Server]:
    """For fixtures of modules that start a server of their own."""
    return Server


@pytest.fixture(scope="module")
def module_server(
    tmp_path_factory: pytest.TempPathFactory, serve_command: list[str]
) -> Iterator[Callable[..., Server]]:
    """Starts ready servers of a handler that the tests of one module share; ends them all."""
    servers: list[Server] = []

    def begin(handler: str, **environ: str) -> Server:
        root = tmp_path_factory.mktemp("module-server")
        (root / "model" / "code").mkdir(parents=True)
        (root / "model" / "code" / "inference.py").write_text(textwrap.dedent(handler))
        server = Server(root, environ, serve_command)
        servers.append(server)
        return server.wait_ready()

    yield begin
    for server in servers:
        server.kill()


@pytest.fixture(scope="session", params=["asgi", "wsgi"])
def front(request: pytest.FixtureRequest) -> str:
    """Each of the two HTTP fronts."""
    name: str = request.param
    return name


@pytest.fixture(scope="session", params=["asgi", "wsgi", "asgi-isolated"])
def variant(request: pytest.FixtureRequest) -> str:
    """The two fronts with the model beside them, and one with the model in another process."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def shared_server(
    variant: str,
    torchscript: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve_command: list[str],
) -> Iterator[Server]:
    """A server of the default functions, for tests that leave it as it is."""
    root = tmp_path_factory.mktemp(f"shared-{variant}")
    (root / "model").mkdir()
    (root / "model" / "model.pt").write_bytes(torchscript.read_bytes())
    front, _, topology = variant.partition("-")
    environ = {
        "BYOC_FRONT": front,
        "BYOC_TOPOLOGY": topology or "inline",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "BYOC_MAX_BODY_BYTES": str(101 * 1024 * 1024),
    }
    server = Server(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


class Models:
    """The models of a multi-model server: written, loaded, asked; unloaded after each test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._written = 0

    def write(self, handler: str = "", **files: bytes) -> str:
        """A model's directory; returns its url, as the platform says it."""
        self._written += 1
        folder = f"{self._written:04d}-{os.urandom(4).hex()}"
        model = self.server.root / "models" / folder / "model"
        (model / "code").mkdir(parents=True)
        echo = "import torch\ndef model_fn(model_dir): return torch.nn.Identity()\n"
        (model / "code" / "inference.py").write_text(textwrap.dedent(handler) or echo)
        for name, content in files.items():
            (model / "code" / name.replace("__", ".")).write_bytes(content)
        return f"/opt/ml/models/{folder}/model"

    def load(self, name: str, url: str | None = None) -> Answer:
        body = json.dumps({"model_name": name, "url": url or self.write()})
        return self.server.request("POST", "/models", body)

    def invoke(self, name: str, body: Any = "[[1]]", **headers: str) -> Answer:
        sent = {"Content-Type": "application/json"}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        return self.server.request("POST", f"{path_of(name)}/invoke", body, sent)

    def get(self, name: str) -> Answer:
        return self.server.request("GET", path_of(name))

    def delete(self, name: str) -> Answer:
        return self.server.request("DELETE", path_of(name))

    def names(self, limit: int | None = None) -> list[str]:
        """All names, page by page."""
        found: list[str] = []
        query = {} if limit is None else {"limit": str(limit)}
        while True:
            answer = self.server.request("GET", f"/models?{urllib.parse.urlencode(query)}")
            assert answer.status == 200, answer.body
            found += [item["modelName"] for item in answer.json["models"]]
            if "nextPageToken" not in answer.json:
                return found
            query["next_page_token"] = answer.json["nextPageToken"]

    def pid(self, name: str) -> int:
        """The process that holds a model with the handler's pid in its answer."""
        return int(self.invoke(name, "[[0]]").json[0][0])

    def clear(self) -> None:
        for name in self.names():
            self.delete(name)


def path_of(name: str) -> str:
    return f"/models/{urllib.parse.quote(name, safe='')}"


@pytest.fixture(scope="session")
def multimodel_server(
    front: str, tmp_path_factory: pytest.TempPathFactory, serve_command: list[str]
) -> Iterator[Server]:
    """A multi-model server for tests that leave it as it is."""
    root = tmp_path_factory.mktemp(f"models-{front}")
    (root / "models").mkdir()
    environ = {
        "BYOC_FRONT": front,
        "SAGEMAKER_MULTI_MODEL": "true",
        "BYOC_MODELS_MEMORY_BYTES": str(16 * 1024**3),
        "BYOC_MAX_MODELS": "200",
        "BYOC_QUEUE_SIZE": "4",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
    }
    server = Server(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


@pytest.fixture
def models(multimodel_server: Server) -> Iterator[Models]:
    """The shared multi-model server, empty before and after."""
    fleet = Models(multimodel_server)
    yield fleet
    fleet.clear()


@pytest.fixture
def own_models(start: Callable[..., Server], tmp_path: Path, front: str) -> Callable[..., Models]:
    """Starts a multi-model server of the test's own."""

    def begin(**environ: str) -> Models:
        (tmp_path / "ml" / "models").mkdir(parents=True)
        server = start(tmp_path / "ml", BYOC_FRONT=front, SAGEMAKER_MULTI_MODEL="true", **environ)
        return Models(server.wait_ready())

    return begin
