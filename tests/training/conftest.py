"""A training job in a folder: its files, and the real command ``train`` run over them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRAIN = (sys.executable, "-m", "byoc_training.main")
DEADLINE_SECONDS = 60.0


@dataclass
class Result:
    """How a job ended."""

    code: int
    stdout: str
    stderr: str
    failure: str | None
    seconds: float

    def seen(self) -> Any:
        """What the probe program printed."""
        return json.loads(self.stdout)


@dataclass
class Job:
    """The folder that stands for ``/opt/ml``, as the platform would fill it."""

    root: Path
    python: str = sys.executable
    environ: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def config(self, name: str, content: object) -> None:
        folder = self.root / "input" / "config"
        folder.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)

    def hyperparameters(self, **values: object) -> None:
        self.config("hyperparameters", values)

    def channel(self, name: str, **files: str) -> Path:
        folder = self.root / "input" / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder

    def program(self, text: str, name: str = "train.py") -> Path:
        """A program in the code directory, as SDK v2's local mode mounts it."""
        path = self.root / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.environ["SAGEMAKER_PROGRAM"] = name
        return path

    def probe(self, name: str = "train.py") -> None:
        """A program that prints its arguments, variables and working directory."""
        self.program(PROBE, name)

    @property
    def failure(self) -> Path:
        return self.root / "output" / "failure"

    def variables(self, **more: str) -> dict[str, str]:
        return {**os.environ, "BYOC_ROOT": str(self.root), **self.environ, **more}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self.python, *TRAIN[1:], *arguments],
            env=self.variables(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
        )
        self.running.append(process)
        return process

    def finish(
        self,
        process: subprocess.Popen[str],
        started: float | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Result:
        begun = time.monotonic() if started is None else started
        stdout, stderr = process.communicate(timeout=deadline_seconds)
        failure = self.failure.read_text(encoding="utf-8") if self.failure.is_file() else None
        return Result(process.returncode, stdout, stderr, failure, time.monotonic() - begun)

    def run(self, *arguments: str, **more: str) -> Result:
        started = time.monotonic()
        return self.finish(self.start(*arguments, **more), started)


PROBE = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(),
                  "path": sys.path, "executable": sys.executable}))
"""


@pytest.fixture
def job(tmp_path: Path):
    made = Job(tmp_path / "ml")
    (made.root / "input" / "config").mkdir(parents=True)
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def wait_for():
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "the condition did not come true in time"
            threading.Event().wait(0.01)
        return found

    return wait


@pytest.fixture
def make_tar(tmp_path: Path):
    """A source archive with files, and with members of any kind."""

    def make(
        files: dict[str, str], *members: tarfile.TarInfo, name: str = "sourcedir.tar.gz"
    ) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz") as tar:
            for file, text in files.items():
                info = tarfile.TarInfo(file)
                info.size = len(text.encode())
                info.mode = 0o644
                tar.addfile(info, io.BytesIO(text.encode()))
            for member in members:
                tar.addfile(member, io.BytesIO(b"x" * member.size))
        return path

    return make


@dataclass
class Bucket:
    """Objects over HTTP as S3 gives them."""

    url: str
    objects: dict[str, bytes]
    requests: list[str]
    #: Set to answer GETs with this status and S3 error code.
    refuse_with: tuple[int, str] | None = None
    #: When set, a GET waits for it.
    gate: threading.Event | None = None


@pytest.fixture
def bucket():
    """An S3 endpoint: path-style GET and HEAD."""
    state = Bucket("", {}, [])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.split("?", 1)[0].lstrip("/")
            state.requests.append(key)
            if state.gate is not None:
                state.gate.wait(DEADLINE_SECONDS)
            status, code = state.refuse_with or (404, "NoSuchKey")
            body = state.objects.get(key) if state.refuse_with is None else None
            if body is None:
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            else:
                status = 200
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    if state.gate is not None:
        state.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def aws(bucket: Bucket) -> dict[str, str]:
    """Variables with which boto3 finds the bucket."""
    return {
        "AWS_ENDPOINT_URL": bucket.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-west-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
