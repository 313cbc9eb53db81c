"""The short way of an ordinary invocation: what takes it, and that nobody can tell."""

from __future__ import annotations

import json
import socket
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byoc_serving.exchange import Invocation, Response
from byoc_serving.rendering import simple
from byoc_serving.short_way import ShortWay
from byoc_serving.straight import BEGIN, parse
from tests.fuzz.targets import understood

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.serving.conftest import Server

ORDINARY = b"Host: a\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n[[1]"


def test_an_ordinary_request_is_taken_apart():
    headers, body = parse(BEGIN + ORDINARY) or ([], b"")
    expected = [(b"host", b"a"), (b"content-type", b"application/json"), (b"content-length", b"4")]
    assert headers == expected
    assert body == b"[[1]"


@pytest.mark.parametrize(
    "other",
    [
        b"",
        BEGIN,
        b"GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"POST /invocations HTTP/1.0\r\n" + ORDINARY,
        b"POST /invocations?a=b HTTP/1.1\r\n" + ORDINARY,
        BEGIN + ORDINARY[:-1],
        BEGIN + ORDINARY + b"x",
        BEGIN + b"Transfer-Encoding: chunked\r\n" + ORDINARY,
        BEGIN + b"Content-Length: 4\r\n" + ORDINARY,
        BEGIN + b"Host: b\r\n" + ORDINARY,
        BEGIN + b"Host:\r\n" + ORDINARY,
        BEGIN + ORDINARY.replace(b"Host: a", b"Host: a\r\nHost: "),
        BEGIN + ORDINARY.replace(b"Host: a", b"Host:"),
        BEGIN + ORDINARY.replace(b": 4", b": +4"),
        BEGIN + ORDINARY.replace(b": 4", b": 4, 4"),
        BEGIN + b"Connection: close\r\n" + ORDINARY,
        BEGIN + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + ORDINARY,
        BEGIN + b"Expect: 100-continue\r\n" + ORDINARY,
        BEGIN + b"X-Amzn-SageMaker-Session-Id: NEW_SESSION\r\n" + ORDINARY,
        BEGIN + b"Content_Length: 4\r\n" + ORDINARY,
        BEGIN + b" folded: 1\r\n" + ORDINARY,
        BEGIN + b"Spaced : 1\r\n" + ORDINARY,
        BEGIN + b"Bare: 1\n" + ORDINARY,
        BEGIN + b"Nul: \x00\r\n" + ORDINARY,
        BEGIN + b"X-Long: " + b"a" * 5000 + b"\r\n" + ORDINARY,
        BEGIN + b"X-Many: 1\r\n" * 65 + ORDINARY,
    ],
)
def test_anything_else_is_for_the_parser(other: bytes):
    assert parse(other) is None


FRAGMENTS = st.sampled_from(
    [b"Host", b"host", b"Content-Length", b"CONTENT-LENGTH", b"Transfer-Encoding", b"Accept",
     b"Connection", b"X-1", b"Content-Type", b":", b": ", b" : ", b"\t", b"a", b"4", b"04", b"0",
     b"keep-alive", b"chunked", b"\r\n", b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b"_", b",",
     b"Host: a\r\n", b"Content-Length: 4\r\n", b"Content-Type: text/csv\r\n", b"abcd"]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=14), st.binary(max_size=6))
@example([b"Host: a\r\n", b"Content-Length: 4\r\n"], b"abcd")
@example([b"Host: a\r\n", b"X-1: \xff\t\r\n", b"Content-Length: 04\r\n"], b"abcd")
def test_what_is_taken_is_what_the_parser_would_have_made_of_it(head: list[bytes], body: bytes):
    data = BEGIN + b"".join(head) + b"\r\n" + body
    parsed = parse(data)
    if parsed is not None:
        assert understood(data) == ("POST", "/invocations", (1, 1), *parsed)


@pytest.mark.parametrize(
    "response",
    [
        Response(204),
        Response(304),
        Response(200, b"x", headers=(("X-A", "a\r\nX-B: b"),)),
        Response(200, b"x", headers=(("Content-Length", "5"),)),
        Response(200, b"x", headers=(("X-A", "\u20ac"),)),
        Response(200, b"x", "text/plain\r\nX: 1"),
    ],
)
def test_a_response_with_rules_of_its_own_is_not_written_here(response: Response):
    assert simple(response) is None


HANDLER = """
    import os, pathlib, time
    GATE = pathlib.Path(os.environ["GATE"])
    def model_fn(model_dir):
        return len
    def input_fn(body, kind):
        return body
    def predict_fn(data, model, context):
        if data == b"wait":
            GATE.with_suffix(".reached").touch()
            while not GATE.exists():
                time.sleep(0.005)
        context.set_response_header(0, "X-Seen", "%d bytes" % len(data))
        if data == b"none":
            context.set_response_status(204)
        if data == b"stream":
            return (part for part in (b"a", b"b"))
        return data
    def output_fn(data, accept):
        return data
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module", params=["inline", "isolated"])
def handled(module_server: Callable[..., Server], gate: Path, request: Any) -> Server:
    topology = request.param
    return module_server(HANDLER, BYOC_FRONT="asgi", BYOC_TOPOLOGY=topology, GATE=str(gate))


def request(body: bytes) -> bytes:
    head = b"Host: a\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    return BEGIN + head % len(body) + body


class Client:
    """One connection; answers are read in order."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 30)
        self._file = self.socket.makefile("rb")
        # The first request may come before gunicorn waits for one; from the second on it does.
        self.socket.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        assert self.read()[0] == 200

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers with names in lower case, body."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers.get("content-length", 0)))
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self._file.readline(), 16):
                body += self._file.read(size + 2)[:size]
            self._file.readline()
        return status, headers, body


@pytest.fixture
def connect(handled: Server) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client(handled))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.mark.contract(59, 64)
def test_answers_of_all_kinds_follow_one_another_on_a_connection(connect: Callable[[], Client]):
    client = connect()
    for sent, status, body in [
        (b"abc", 200, b"abc"), (b"none", 204, b""), (b"stream", 200, b"ab"), (b"", 200, b""),
        (b"abcd", 200, b"abcd"), (b"stream", 200, b"ab"), (b"none", 204, b""), (b"x", 200, b"x"),
    ]:  # fmt: skip
        client.socket.sendall(request(sent))
        answer = client.read()
        assert (answer[0], answer[2]) == (status, body)
        assert ("content-length" in answer[1]) == (sent not in {b"none", b"stream"})
        if sent != b"stream":
            assert answer[1]["x-seen"] == f"{len(sent)} bytes"
            assert {"date", "server"} <= answer[1].keys()


def test_what_is_sent_ahead_is_answered_in_order(
    handled: Server, connect: Callable[[], Client], gate: Path
):
    client = connect()
    client.socket.sendall(request(b"wait"))
    handled.wait_until(gate.with_suffix(".reached").exists)
    gate.with_suffix(".reached").unlink()
    long = b"l" * 200_000
    client.socket.sendall(request(b"stream") + request(b"second"))
    client.socket.sendall(request(long))
    client.socket.shutdown(socket.SHUT_WR)
    gate.touch()
    try:
        assert [client.read()[2] for _ in range(4)] == [b"wait", b"ab", b"second", long]
        assert client.socket.recv(1) == b""
    finally:
        gate.unlink()


def test_a_client_that_leaves_is_forgotten(
    handled: Server, connect: Callable[[], Client], gate: Path
):
    client = connect()
    client.socket.sendall(request(b"wait"))
    handled.wait_until(gate.with_suffix(".reached").exists)
    gate.with_suffix(".reached").unlink()
    # Reset, which the server sees at once; after a mere FIN it would look from time to time.
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    # Two pings: the loop has seen the reset, and has had a turn to act on it, before the model
    # goes on; else the answer could still be written to a socket that nobody knows to be closed.
    connect()
    other = connect()
    other.socket.sendall(request(b"other"))
    gate.touch()
    try:
        assert other.read()[2] == b"other"
        metrics = handled.request("GET", "/metrics").body.decode()
        assert 'status="499"' in metrics
    finally:
        gate.unlink()
    assert json.loads(handled.request("GET", "/ping").body) == {"status": "ready"}


class Sent:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Answers:
    """Stands in for the service: has each request answered with its own body."""

    observer = None
    sessions = None

    def admit(self, headers: list[tuple[bytes, bytes]]) -> Invocation:
        return Invocation(headers)

    def grown(self, invocation: Invocation, received_bytes: int) -> None:
        assert len(invocation.body) == received_bytes

    def submit(self, invocation: Invocation) -> None:
        invocation.future.set_result(Response(200, bytes(invocation.body)))


@pytest.mark.parametrize("requests", [0, 1, 7])
def test_an_ordinary_request_does_not_reach_the_parser(requests: int):
    connection = ShortWay.__new__(ShortWay)
    connection.transport = sent = Sent()
    connection.worker = SimpleNamespace(service=Answers(), leaving=False, alive=True)
    connection.heard, connection.req_count = 0, requests
    connection.half_closed, connection.straight = False, None
    # Before its first request nobody may wait yet; gunicorn's task counts that one.
    connection._keepalive_handle, connection._awaiting_request = None, requests > 0
    # There is no parser at all: whoever feeds it fails.
    connection.begin(BEGIN + ORDINARY)
    assert sent.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.data.endswith(b"\r\n\r\n[[1]")
    assert connection.straight is None
    assert (connection.heard, connection.req_count) == (1, requests + 1 if requests else 0)


def test_the_first_request_of_a_connection_is_one_of_many(handled: Server):
    """Sent with the connection itself, before anybody can have waited for it."""
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", handled.port), 30) as connection:
            file = connection.makefile("rb")
            for _ in range(3):
                connection.sendall(request(b"abc"))
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += file.readline()
                assert head.startswith(b"HTTP/1.1 200 ")
                assert file.read(3) == b"abc"
