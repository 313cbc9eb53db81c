"""Bidirectional streaming, frame by frame as RFC 6455 has them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serving.conftest import Server

PATH = "/invocations-bidirectional-stream"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MIB = 1024 * 1024

#: The first message says what the conversation is for.
HANDLER = """
import asyncio, os, pathlib, time, torch
NOTES = pathlib.Path(__file__).parents[2] / "notes"
BIDIRECTIONAL_PATHS = ["/invocations-bidirectional-stream", "/chat", "/async"]

def model_fn(model_dir):
    return "model"

def predict_fn(data, model):
    return [1]

async def answers(messages, model):
    count = 0
    async for message in messages:
        count += 1
        yield {"count": count, "message": message}
        await asyncio.sleep(0)

def bidirectional_fn(messages, model, context):
    first = next(messages)
    if first == "async":
        return answers(messages, model)
    return talk(first, messages, model, context)

def talk(first, messages, model, context):
    assert torch.is_inference_mode_enabled()
    try:
        if first == "fail":
            yield "before"
            raise ValueError("told to fail: " + "é" * 200)
        if first == "end":
            yield "last"
            return
        if first == "pid":
            yield str(os.getpid())
        if first == "gated":
            gate = NOTES.with_name("gated")
            gate.touch()
            while gate.exists():
                time.sleep(0.01)
            yield str(sum(1 for _, message in zip(range(64), messages)))
            return
        if first == "hello":
            yield {"model": model, "colour": context.get_request_header(0, "X-Colour")}
        for message in messages:
            yield message if isinstance(message, str) else bytes(message[::-1])
    finally:
        with NOTES.open("a") as file:
            file.write(f"{first} over\\n")
"""


class Client:
    """One connection; sends and reads single frames."""

    def __init__(self, server: Server, path: str = PATH, **headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.stream = self.socket.makefile("rb")
        wanted = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{n}: {v}" for n, v in wanted.items() if v), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.status = int(self.stream.readline().split()[1])
        self.headers = {}
        while line := self.stream.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    @property
    def body(self) -> Any:
        return json.loads(self.stream.read(int(self.headers["content-length"])))

    def send(
        self, opcode: int, payload: bytes | str = b"", *, fin: bool = True, masked: bool = True
    ) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        head = bytes([(0x80 if fin else 0) | opcode])
        bit = 0x80 if masked else 0
        if len(data) < 126:
            head += bytes([bit | len(data)])
        elif len(data) < 65536:
            head += bytes([bit | 126]) + struct.pack("!H", len(data))
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", len(data))
        if masked:
            key = os.urandom(4)
            repeated = (key * (len(data) // 4 + 1))[: len(data)]
            number = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
            data = key + number.to_bytes(len(data), "big")
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(head + data)

    def read(self) -> tuple[int, bytes]:
        """The next frame; (-1, b"") at the connection's end."""
        head = self.stream.read(2)
        if len(head) < 2:
            return -1, b""
        assert head[0] & 0x80, "the server sends whole messages"
        assert not head[1] & 0x80, "a server's frames are not masked"
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.stream.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.stream.read(8))
        return head[0] & 0x0F, self.stream.read(length)

    def closing(self) -> tuple[int, str]:
        """The close frame that comes next, answered: its code and reason."""
        opcode, payload = self.read()
        assert opcode == CLOSE, (opcode, payload[:100])
        assert len(payload) <= 125
        self.send(CLOSE, payload[:2])
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("websocket")
    code = root / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(HANDLER)
    return root


@pytest.fixture(scope="module", params=["inline", "isolated"])
def server(
    root: Path, serve_command: list[str], server_class: Any, request: Any
) -> Iterator[Server]:
    environ = {
        "BYOC_TOPOLOGY": request.param,
        "BYOC_WEBSOCKET_MESSAGE_BYTES": str(4 * MIB),
        "BYOC_MAX_STREAMS": "24",
    }
    server = server_class(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


@pytest.fixture
def connect(server: Server) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def connected(path: str = PATH, **headers: str) -> Client:
            return stack.enter_context(contextlib.closing(Client(server, path, **headers)))

        yield connected


@pytest.mark.contract(90)
def test_messages_go_both_ways_and_the_client_closes_with_1000(server, connect, root):
    client = connect(**{"X-Colour": "blue"})
    assert client.status == 101
    assert client.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    client.send(TEXT, "hello")
    assert json.loads(client.read()[1]) == {"model": "model", "colour": "blue"}
    client.send(TEXT, "wörter")
    assert client.read() == (TEXT, "wörter".encode())
    client.send(BINARY, b"\x00\xff")
    assert client.read() == (BINARY, b"\xff\x00")
    client.send(CLOSE, struct.pack("!H", 1000) + b"done")
    opcode, payload = client.read()
    assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 1000))
    assert client.read() == (-1, b"")
    notes = root / "notes"
    server.wait_until(lambda: notes.exists() and "hello over" in notes.read_text())


@pytest.mark.contract(90)
def test_pings_are_answered_between_fragments_of_a_message(connect):
    client = connect("/chat")
    client.send(TEXT, "echo")
    client.send(PING, b"still there?")
    assert client.read() == (PONG, b"still there?")
    # A character may be cut in two by the fragments.
    client.send(TEXT, "hé".encode()[:2], fin=False)
    client.send(PING)
    assert client.read() == (PONG, b"")
    client.send(CONTINUATION, "hé".encode()[2:], fin=False)
    client.send(PONG, b"nobody asked")
    client.send(CONTINUATION, b"llo")
    assert client.read() == (TEXT, "héllo".encode())


def test_an_asynchronous_handler_and_large_messages(connect):
    client = connect()
    client.send(TEXT, "async")
    client.send(TEXT, "one")
    assert json.loads(client.read()[1]) == {"count": 1, "message": "one"}
    client = connect()
    client.send(TEXT, "echo")
    data = os.urandom(3 * MIB)
    client.send(BINARY, data)
    assert client.read() == (BINARY, data[::-1])


def test_the_handlers_end_closes_with_1000_and_its_failure_with_1011(server, connect):
    client = connect()
    client.send(TEXT, "end")
    assert client.read() == (TEXT, b"last")
    assert client.closing() == (1000, "")
    assert client.read() == (-1, b"")
    client = connect(**{"X-Amzn-SageMaker-Inference-Id": "failing-one"})
    client.send(TEXT, "fail")
    assert client.read() == (TEXT, b"before")
    code, reason = client.closing()
    assert code == 1011
    assert "ValueError" in reason
    server.wait_until(lambda: "failing-one failed in bidirectional_fn" in server.log)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(TEXT, b"\xff", {})], 1007),
        ([(TEXT, b"\xc3", {"fin": False}), (CONTINUATION, b"\x28", {})], 1007),
        ([(BINARY, b"x" * (4 * MIB + 1), {})], 1009),
        (
            [(BINARY, b"x" * (3 * MIB), {"fin": False}), (CONTINUATION, b"x" * (2 * MIB), {})],
            1009,
        ),
        ([(TEXT, b"x", {"masked": False})], 1002),
        ([(CONTINUATION, b"x", {})], 1002),
        ([(TEXT, b"x", {"fin": False}), (TEXT, b"y", {})], 1002),
        ([(PING, b"x" * 126, {})], 1002),
        ([(PING, b"x", {"fin": False})], 1002),
        ([(0x3, b"x", {})], 1002),
        ([(0xB, b"x", {})], 1002),
        ([(TEXT | 0x40, b"x", {})], 1002),
        ([(CLOSE, b"x", {})], 1002),
        ([(CLOSE, struct.pack("!H", 1005), {})], 1002),
        ([(CLOSE, struct.pack("!H", 1000) + b"\xff", {})], 1007),
    ],
)
def test_what_breaks_the_protocol_is_closed_with_its_code(server, connect, frames, code):
    client = connect()
    client.send(TEXT, "echo")
    for opcode, payload, options in frames:
        client.send(opcode, payload, **options)
    assert client.closing()[0] == code
    assert server.ping().status == 200


def test_a_client_that_vanishes_ends_the_conversation(server, connect, root):
    client = connect()
    client.send(TEXT, "vanishing")
    client.send(TEXT, "echo")
    assert client.read() == (TEXT, b"echo")
    client.close()
    server.wait_until(lambda: "vanishing over" in (root / "notes").read_text())


def test_a_slow_reader_is_waited_for(server, connect):
    client = connect()
    client.send(TEXT, "echo")
    block = bytes(MIB)
    # More than every buffer between here and there holds: sending must wait for the reading.
    sender = threading.Thread(target=lambda: [client.send(BINARY, block) for _ in range(64)])
    sender.start()
    assert server.invoke("[1]").status == 200
    for _ in range(64):
        opcode, payload = client.read()
        assert (opcode, len(payload)) == (BINARY, MIB)
    sender.join(60)
    assert not sender.is_alive()


def test_hundreds_of_messages_keep_their_order(connect):
    client = connect()
    client.send(TEXT, "echo")
    for number in range(400):
        client.send(TEXT, str(number))
    assert [client.read() for _ in range(400)] == [(TEXT, str(n).encode()) for n in range(400)]


def test_a_handler_that_does_not_read_makes_its_client_wait_and_nobody_else(server, connect, root):
    client = connect()
    client.send(TEXT, "gated")
    server.wait_until((root / "gated").exists)
    block = bytes(MIB)
    sender = threading.Thread(target=lambda: [client.send(BINARY, block) for _ in range(64)])
    sender.start()
    assert server.invoke("[1]").status == 200
    assert sender.is_alive(), "64 MiB have gone where nobody reads"
    (root / "gated").unlink()
    assert client.read() == (TEXT, b"64")
    sender.join(60)
    assert not sender.is_alive()


@pytest.mark.contract(90)
def test_the_loss_of_the_model_process_closes_with_1011_and_the_next_one_talks(start, root):
    server = start(root, BYOC_TOPOLOGY="isolated").wait_ready()
    with contextlib.closing(Client(server)) as client:
        client.send(TEXT, "pid")
        opcode, payload = client.read()
        assert opcode == TEXT
        os.kill(int(payload), signal.SIGKILL)
        assert client.closing() == (1011, "the model's process was lost")

    def talks() -> bool:
        with contextlib.closing(Client(server, "/chat")) as other:
            # Never 404: the paths are known whether or not a process lives.
            assert other.status in {101, 503}
            if other.status == 503:
                return False
            other.send(TEXT, "end")
            return other.read() == (TEXT, b"last")

    server.wait_until(talks)


def test_several_at_once_beside_invocations(server, connect):
    clients = [connect() for _ in range(16)]
    for number, client in enumerate(clients):
        client.send(TEXT, "echo")
        client.send(TEXT, str(number))
    assert server.invoke("[1]").json == [1]
    assert [client.read()[1].decode() for client in clients] == [str(n) for n in range(16)]


def test_more_than_there_may_be_are_refused_before_the_upgrade(server, connect):
    held = []
    while (client := connect()).status == 101:
        held.append(client)
        assert len(held) <= 24
    assert (client.status, client.body["error"]["code"]) == (503, "full")
    for client in held:
        client.close()

    def accepted() -> bool:
        with contextlib.closing(Client(server)) as client:
            return client.status == 101

    server.wait_until(accepted)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/elsewhere", {}, 404),
        ("/invocations", {}, 404),
        (PATH, {"Sec-WebSocket-Version": "8"}, 426),
        (PATH, {"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
        (PATH, {"Sec-WebSocket-Key": ""}, 400),
        (PATH, {"Upgrade": "", "Connection": "close"}, 426),
    ],
)
def test_other_handshakes_are_refused(connect, path, headers, status):
    client = connect(path, **headers)
    assert client.status == status
    if status == 404:
        assert PATH in client.body["error"]["message"]


@pytest.mark.contract(90)
@pytest.mark.parametrize("topology", ["inline", "isolated"])
def test_a_stop_closes_with_1001(start, root, topology):
    server = start(root, BYOC_TOPOLOGY=topology).wait_ready()
    with contextlib.closing(Client(server)) as client:
        client.send(TEXT, "echo")
        client.send(TEXT, "there")
        assert client.read() == (TEXT, b"there")
        server.process.terminate()
        assert client.closing() == (1001, "the server stops")
    assert server.wait_end() == 0


def test_without_a_function_or_on_the_wsgi_front_the_upgrade_is_refused(
    shared_server: Server, variant: str
):
    with contextlib.closing(Client(shared_server)) as client:
        assert client.status == 404
        message = client.body["error"]["message"]
    assert ("bidirectional_fn" if variant != "wsgi" else "BYOC_FRONT=wsgi") in message
