"""Requests that no platform sends: one clear line for each, and never a 500."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models


def sent(port: int, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the answer to a request as it is written here."""
    lines = [head, "Host: a", "Connection: close", "Content-Type: application/json"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        answer = b""
        while data := client.recv(65536):
            answer += data
    top, _, content = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), content


@pytest.mark.contract(64, 82)
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "http://a/models/echo", 200),
        ("GET", "http://a:8080/models?limit=1", 200),
        ("GET", "/%6dodels/echo", 200),
        ("GET", "/models%2Fecho", 200),
        ("GET", "/models/", 200),
        ("POST", "http://a/models/echo/invoke", 200),
        ("POST", "/%6Dodels/echo/invoke", 200),
        ("POST", "/models/echo/invoke?x=1", 200),
        ("POST", "/models/echo/invoke/", 405),
        ("POST", "/models//invoke", 404),
        ("POST", "/models/%zz/invoke", 404),
        ("POST", "/models/%ff%fe/invoke", 404),
        ("POST", "/models/%00/invoke", 404),
        ("POST", "/models/%ED%A0%80/invoke", 404),
        ("POST", "/models/" + "%F0%9F%98%80" * 300 + "/invoke", 404),
        ("POST", "/models/" + "a" * 9000 + "/invoke", 414),
        ("DELETE", "/models/%ff", 404),
        ("DELETE", "/models/../ping", 404),
        ("DELETE", "/models", 405),
        ("PATCH", "/models/echo", 405),
        ("OPTIONS", "/models", 405),
        ("OPTIONS", "*", 404),
        ("BREW", "/models/echo/invoke", 405),
        ("GET", "/models?next_page_token=%ff%00", 400),
        ("GET", "/models?next_page_token=YWZ0ZXI6_w", 400),
        ("GET", "/models?limit=1&limit=0", 400),
    ],
)
def test_odd_targets_get_the_contracts_codes(models: Models, method, target, status):
    assert models.load("echo").status == 200
    body = b"[[1]]" if method == "POST" else b""
    seen, content = sent(models.server.port, f"{method} {target} HTTP/1.1", body)
    assert seen == status, content
    if status >= 400:
        error = json.loads(content)["error"]
        assert error["message"]
        assert "\n" not in error["message"]
        assert len(content) < 2048
    assert models.names() == ["echo"]
    assert "Traceback" not in models.server.log


@pytest.mark.contract(64)
def test_odd_load_bodies_are_refused_alike_by_both_fronts(models: Models):
    url = models.write()
    bodies = [
        b'{"model_name": "\\ud800", "url": "/opt/ml/models/a"}',
        b'{"model_name": "a", "url": "/opt/ml/models/\\ud800"}',
        b'{"model_name": "a", "url": NaN}',
        b'{"model_name": "a", "url": ' + b"9" * 5000 + b"}",
        b'{"model_name": ' * 2000,
        b'\xef\xbb\xbf{"model_name": "a", "url": "x"}',
        '{"model_name": "a", "url": "x"}'.encode("utf-16"),
        b"model_name=a&url=b",
        b"\x1f\x8b\x08\x00",
        b'{"model_name": "a", "url": ["/opt/ml/models/a"]}',
        b"x" * 70_000,
        # It could be loaded, and then no request line would hold its name.
        json.dumps({"model_name": "\u00fc" * 1000, "url": url}).encode(),
    ]
    for body in bodies:
        answer = models.server.request("POST", "/models", body)
        assert (answer.status, answer.json["error"]["code"]) == (400, "bad_body"), body[:60]
    assert models.names() == []
    assert models.load("\u00fc" * 600, url).status == 200
    assert models.get("\u00fc" * 600).status == 200


def test_target_headers_change_nothing(models: Models):
    assert models.load("one").status == 200
    for target in ("two", "../../x", "", "\xff", "a" * 4000):
        answer = models.invoke("one", X_Amzn_SageMaker_Target_Model=target)
        assert (answer.status, answer.json) == (200, [[1.0]]), target[:20]
    refused = models.server.invoke("[[1]]", headers={"X-Amzn-SageMaker-Target-Model": "one"})
    assert refused.status == 404
    assert "/models/<name>/invoke" in refused.error
