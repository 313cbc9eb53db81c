"""Long bodies, as asynchronous endpoints send them: on the disk while they wait, on both fronts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.conftest import Server

MIB = 1024 * 1024
#: 1,024 on demand: what an asynchronous endpoint sends at most.
LONG_MIB = int(os.environ.get("BYOC_TEST_LONG_MIB", "300"))

HANDLER = """
import hashlib, json, os

def model_fn(model_dir):
    return 0

def input_fn(body: memoryview, content_type):
    assert isinstance(body, memoryview)
    digest = hashlib.sha256()
    for start in range(0, len(body), 1 << 20):
        digest.update(body[start : start + (1 << 20)])
    return {"bytes": len(body), "sha256": digest.hexdigest()}

def predict_fn(data, model):
    return data

def output_fn(prediction, accept):
    return json.dumps({**prediction, "pid": os.getpid()})
"""


@pytest.fixture(scope="module")
def server(
    front: str,
    tmp_path_factory: pytest.TempPathFactory,
    serve_command: list[str],
    server_class: Any,
) -> Iterator[Server]:
    root = tmp_path_factory.mktemp(f"async-{front}")
    code = root / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(HANDLER)
    environ = {"BYOC_FRONT": front, "BYOC_SPOOL_BYTES": str(MIB), "TMPDIR": str(root)}
    server = server_class(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


def private_kib(pid: int) -> int:
    """A process's own memory; the pages of a mapped file are not its own."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found
    return int(found[1])


def files_of(pid: int) -> list[str]:
    """Nameless files that a process holds, open or mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    links = [
        str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()
    ]
    return [text for text in (*maps, *links) if "byoc-serve-" in text and "(deleted)" in text]


def blocks(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield number.to_bytes(8, "big") * (MIB // 8)


@pytest.mark.contract(65, 66)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_hundreds_of_megabytes_passes_through_the_disk(server: Server, chunked):
    before = private_kib(json.loads(server.invoke("[]").body)["pid"])
    digest = hashlib.sha256()
    highest = 0
    pid = json.loads(server.invoke("[]").body)["pid"]

    def sent() -> Iterator[bytes]:
        nonlocal highest
        for number, block in enumerate(blocks(LONG_MIB)):
            digest.update(block)
            yield block
            if number % 16 == 0:
                highest = max(highest, private_kib(pid))

    headers = {"Content-Type": "application/octet-stream"}
    if not chunked:
        headers["Content-Length"] = str(LONG_MIB * MIB)
    answer = server.request(
        "POST", "/invocations", sent(), headers, timeout=600, encode_chunked=chunked
    )
    assert answer.status == 200, answer.body[:300]
    assert answer.json["bytes"] == LONG_MIB * MIB
    assert answer.json["sha256"] == digest.hexdigest()
    highest = max(highest, private_kib(pid))
    assert highest - before < 48 * 1024, f"{before} KiB before, {highest} KiB at most"
    server.wait_until(lambda: not files_of(pid))
    assert list(server.root.glob("byoc-serve-*/tmp*")) == []


def test_a_client_that_stops_within_a_long_body_leaves_no_file(server: Server):
    pid = json.loads(server.invoke("[]").body)["pid"]
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Length: 104857600\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head)
        client.sendall(bytes(8 * MIB))
        server.wait_until(lambda: files_of(pid))
    server.wait_until(lambda: not files_of(pid))


def test_small_bodies_stay_in_memory_and_a_text_may_be_long(start, model_root, front):
    handler = """
        def model_fn(model_dir): return 0
        def transform_fn(model, body, content_type, accept):
            return type(body).__name__ + " " + str(len(body))
    """
    server = start(model_root(handler), BYOC_FRONT=front, BYOC_SPOOL_BYTES="1000").wait_ready()
    assert server.invoke(b"x" * 900, "application/octet-stream").body == b"bytes 900"
    assert server.invoke(b"x" * 99999, "application/octet-stream").body == b"bytes 99999"
    assert server.invoke(("é" * 5000).encode(), "text/csv").body == b"str 5000"
    answer = server.invoke(b"x" * 5000 + b"\xff", "text/csv")
    assert (answer.status, answer.error.startswith("not UTF-8: byte 5000 is 0xff")) == (400, True)


def test_a_full_disk_is_a_507_and_the_server_goes_on(start, model_root, front, tmp_path):
    # A limit on a file's size fails writes as a full disk does.
    server = start(
        model_root(HANDLER),
        ["/bin/bash", "-c", 'trap "" XFSZ; ulimit -f 4096; exec serve'],
        BYOC_FRONT=front,
        BYOC_SPOOL_BYTES=str(MIB),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    ).wait_ready()
    answer = server.invoke(bytes(5 * MIB), "application/octet-stream")
    assert (answer.status, answer.json["error"]["code"]) == (507, "insufficient_storage")
    assert "TMPDIR" in answer.error
    assert server.invoke("[]").status == 200
