"""Registries to push to: one that says what it is told to, and Debian's own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from byoc.manifests import CONFIG, LAYER, MANIFEST, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "AWS", "not-a-secret"
#: PASSWORD in bcrypt, the one form that the registry takes.
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuVPNOToLP9MHdthRCXkVoiIF0qNKnk2G\n"


def sign(folder: Path) -> None:
    """A certificate for loopback, signed by itself: ``cert.pem`` and ``key.pem``."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


class FakeRegistry:
    """Says what it is told to, over TLS, to who shows the right token."""

    def __init__(self, certificate: Path) -> None:
        self.documents: dict[str, Any] = {}
        self.tokens: list[str] = []
        self.bearer = True
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.registry = Registry(self.host, USER, PASSWORD, str(certificate / "cert.pem"))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        path, _, query = request.path.partition("?")
        shown = request.headers.get("Authorization", "")
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if path == "/token":
            if shown != basic:
                self.send(request, 401, b"{}", {})
                return
            self.tokens.append(query)
            self.send(request, 200, b'{"token": "good"}', {})
        elif shown != ("Bearer good" if self.bearer else basic):
            realm = f'Bearer realm="https://{self.host}/token",service="fake"'
            self.send(request, 401, b"", {"WWW-Authenticate": realm if self.bearer else "Basic"})
        elif path in self.documents:
            body, headers = self.documents[path]
            self.send(request, 200, body, headers)
        else:
            self.send(request, 404, b"{}", {})

    def send(self, request, status, body, headers):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def put(self, *, kind=MANIFEST, layer=LAYER, platform=("linux", "amd64"), **more: Any):
        """An image ``a:1``; returns its manifest's digest."""
        labels = {"sagemaker-byoc.cuda.version": "12.8"}
        config = json.dumps(
            {"os": platform[0], "architecture": platform[1], "config": {"Labels": labels}}
        ).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": CONFIG, "digest": digest, "size": len(config)},
            "layers": [{"mediaType": layer, "size": 1000, "digest": "sha256:x"},
                       {"mediaType": layer, "size": 234, "digest": "sha256:y"}],
            **more,
        }  # fmt: skip
        body = json.dumps(manifest).encode()
        whole = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.documents["/v2/a/manifests/1"] = body, {
            "Content-Type": kind, "Docker-Content-Digest": whole
        }  # fmt: skip
        self.documents[f"/v2/a/blobs/{digest}"] = config, {}
        return whole, digest


@contextlib.contextmanager
def debians(certificate: Path, folder: Path) -> Iterator[Registry]:
    """Debian's docker-registry with TLS and basic authentication, as ECR has it."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry on this machine; apt-get install docker-registry")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(
        f"""
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder / "registry"}}}}}
http:
  addr: 127.0.0.1:{port}
  tls: {{certificate: {certificate / "cert.pem"}, key: {certificate / "key.pem"}}}
auth: {{htpasswd: {{realm: test, path: {folder / "htpasswd"}}}}}
"""
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", folder / "config.yml"], stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, "the registry did not start"
                time.sleep(0.05)
        yield Registry(f"127.0.0.1:{port}", USER, PASSWORD, str(certificate / "cert.pem"))
    finally:
        process.terminate()
        process.wait(20)
