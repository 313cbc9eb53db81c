"""More requests than keep the model busy: held back unread, all answered; refused when full."""

from __future__ import annotations

import json
import os
import signal
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from byoc_serving.batcher import Admission
from byoc_serving.gate import ALWAYS, Gate
from byoc_serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from byoc_serving.exchange import Response
    from tests.serving.conftest import Server

#: Two batches of the default size keep the model busy; so many more do not.
MANY = 300
HELD = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path(os.environ["GATE"])
    def model_fn(model_dir):
        return torch.nn.Identity()
    def predict_fn(data, model):
        while not GATE.exists():
            time.sleep(0.005)
        return model(data)
"""


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """The file that lets predict_fn go on."""
    return tmp_path / "open"


@pytest.fixture
def begin(
    start: Callable[..., Server], model_root: Callable[..., Path], opened: Path
) -> Callable[..., Server]:
    def ready(**environ: str) -> Server:
        one = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "BYOC_FRONT": "asgi"}
        return start(model_root(HELD), GATE=str(opened), **one, **environ).wait_ready()

    return ready


@pytest.fixture
def connect() -> Iterator[Callable[[Server], socket.socket]]:
    made: list[socket.socket] = []

    def one(server: Server) -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        return made[-1]

    yield one
    for connection in made:
        connection.close()


def post(value: int, *more: str) -> bytes:
    body = b"[[%d]]" % value
    head = ("POST /invocations HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more)
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += _more(connection)
    return int(first.split()[1]), headers, body


def _more(connection: socket.socket) -> bytes:
    more = connection.recv(65536)
    if not more:
        raise ConnectionError("the server has closed the connection")
    return more


def busy(server: Server, wanted: int) -> bool:
    """Whether so many requests are with the model or wait for it."""
    metrics = server.request("GET", "/metrics").body.decode()
    lines = [line for line in metrics.splitlines() if line.startswith("byoc_invocations_in_flight")]
    return sum(float(line.split()[-1]) for line in lines) >= wanted


@pytest.mark.contract(73)
def test_many_requests_wait_each_gets_its_own_answer_and_pings_pass(begin, connect, opened):
    server = begin()
    connections = [connect(server) for _ in range(MANY)]
    for number, connection in enumerate(connections):
        connection.sendall(post(number))
    server.wait_until(lambda: busy(server, MANY))
    for _ in range(5):
        ping = server.ping()
        assert ping is not None
        assert ping.status == 200
    opened.touch()
    for number, connection in enumerate(connections):
        status, _, body = answer(connection)
        assert (status, json.loads(body)) == (200, [[number]])
    # The same connections serve again.
    for number, connection in enumerate(connections):
        connection.sendall(post(number + 1))
    assert [answer(connection)[0] for connection in connections] == [200] * MANY
    assert server.terminate() == 0


@pytest.mark.contract(67)
def test_a_stop_answers_what_was_held_back(begin, connect, opened):
    server = begin()
    connections = [connect(server) for _ in range(MANY)]
    for number, connection in enumerate(connections):
        connection.sendall(post(number))
    server.wait_until(lambda: busy(server, MANY))
    os.kill(server.process.pid, signal.SIGTERM)
    server.wait_until(lambda: server.ping() is None)
    opened.touch()
    answers = [answer(connection) for connection in connections]
    assert [status for status, _, _ in answers] == [200] * MANY
    assert [json.loads(body) for _, _, body in answers] == [[[n]] for n in range(MANY)]
    assert server.wait_end() == 0


@pytest.mark.contract(73)
def test_a_refused_request_keeps_its_connection_and_its_id(begin, connect, opened):
    server = begin(BYOC_QUEUE_SIZE="2")
    inside = [connect(server) for _ in range(2)]
    for number, connection in enumerate(inside):
        connection.sendall(post(number))
    server.wait_until(lambda: busy(server, 2))
    connection = connect(server)
    for identifier in ("first", "second"):
        connection.sendall(post(7, f"X-Amzn-SageMaker-Inference-Id: {identifier}"))
        status, headers, body = answer(connection)
        assert status == 503
        assert headers["retry-after"] == "1"
        error = json.loads(body)["error"]
        assert (error["code"], error["request_id"]) == ("full", identifier)
        assert "full" in error["message"]
    connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(connection)[0] == 200
    opened.touch()
    assert [answer(one)[0] for one in inside] == [200, 200]
    connection.sendall(post(7))
    assert json.loads(answer(connection)[2]) == [[7]]


class Loop:
    """A clock, and nothing that happens later."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def call_later(self, *_: Any) -> None:
        return None


class Connection:
    def __init__(self) -> None:
        self.answers: list[int] = []

    def hold(self) -> None:
        return None

    def go_on(self, _: bytes) -> bool:
        return True

    def answer(self, response: Response) -> None:
        self.answers.append(response.status)


def test_beyond_a_thousand_none_are_taken_while_the_first_has_waited_too_long():
    loop = Loop()
    admission = Admission(16384, 1 << 30)
    service = SimpleNamespace(
        admission=admission, settings=Settings(queue_s=5.0), observer=None, on_answers=None
    )
    gate = Gate(service, 2, loop)  # type: ignore[arg-type] # what it needs of them
    admission.begin()
    admission.begin()

    def ask() -> list[int]:
        connection = Connection()
        assert gate.takes(connection, post(1))  # type: ignore[arg-type] # what it needs of one
        return connection.answers

    loop.now = 100.0
    assert not any(ask() for _ in range(ALWAYS))
    loop.now = 104.0
    assert not any(ask() for _ in range(2 * ALWAYS))
    loop.now = 105.5
    assert ask() == [503]
    # Those of the first second are let in, two at a time; the next ones have not waited for long.
    admission.end(2)
    for _ in range(ALWAYS // 2):
        gate._release()
    assert admission.held == 2 * ALWAYS
    assert ask() == []
    loop.now = 109.5
    assert ask() == [503]
