"""A stand-in for AWS, and `byoc` called as a shell calls it, in this process."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import sys
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from byoc import image_facts, main
from byoc.aws import Aws
from tests.byoc import registries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGION = "eu-central-1"


@dataclass
class Done:
    """How a call of `byoc` ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Byoc:
    """``byoc``, with what it prints."""

    def __call__(self, *words: str, stdin: bytes = b"") -> Done:
        out, err = io.StringIO(), io.StringIO()
        code = 0
        source = io.TextIOWrapper(io.BytesIO(stdin))
        with (
            mock.patch.object(sys, "argv", ["byoc", *words]),
            mock.patch.object(sys, "stdin", source),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main.main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        return Done(code, out.getvalue(), err.getvalue())

    def planned(self, *words: str) -> list[dict[str, Any]]:
        """The requests of a dry run."""
        done = self(words[0], "--dry-run", *words[1:])
        assert done.code == 0, done.err
        found: list[dict[str, Any]] = done.json
        return found


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, no configuration, nothing of the surrounding account."""
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def byoc() -> Byoc:
    return Byoc()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """moto's server: SageMaker's answers are canned, S3, ECR, IAM and logs work."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def moto(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The stand-in, empty, for everything that asks AWS."""
    urllib.request.urlopen(f"{moto_url}/moto-api/reset", b"").close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return moto_url


@pytest.fixture
def aws(moto: str) -> Aws:
    return Aws(REGION)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in is on loopback; this makes it count as AWS."""
    monkeypatch.setattr(Aws, "local", property(lambda _: False))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker engine answers, so that nothing is known of images."""
    monkeypatch.setattr(image_facts, "engine", lambda *_: None)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A channel of five test digits; number n is a bright bar in row n, and is labelled n."""
    folder = tmp_path / "digits"
    folder.mkdir()
    pixels = bytearray(5 * 784)
    for number in range(5):
        start = number * 784 + number * 28
        pixels[start : start + 28] = b"\xff" * 28
    images = struct.pack(">HBB3I", 0, 8, 3, 5, 28, 28) + bytes(pixels)
    (folder / "t10k-images-idx3-ubyte").write_bytes(images)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(
        struct.pack(">HBBI", 0, 8, 1, 5) + bytes(range(5))
    )
    return folder


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    registries.sign(folder)
    return folder


@pytest.fixture
def fake(certificate: Path) -> Iterator[registries.FakeRegistry]:
    """A registry that says what it is told to."""
    registry = registries.FakeRegistry(certificate)
    yield registry
    registry.close()
