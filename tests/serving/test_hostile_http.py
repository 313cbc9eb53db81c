"""Connections that are slow, half closed, many, malformed or gone; on both fronts."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.conftest import Server

HANDLER = """
    import os, pathlib, time, torch
    FOLDER = pathlib.Path(os.environ["FOLDER"])
    def model_fn(model_dir): return torch.nn.Identity()
    def input_fn(data, content_type):
        if data == "large":
            return "large"
        return torch.tensor([float(len(data))])
    def predict_fn(data, model):
        if data == "large":
            return "x" * 20_000_000
        value = int(data.sum())
        with open(FOLDER / "seen", "a") as seen:
            seen.write(f"{value} ")
        while value == 99 and not (FOLDER / "go").exists():
            time.sleep(0.005)
        return data
    def output_fn(prediction, accept):
        return prediction if isinstance(prediction, str) else str(int(prediction.sum()))
"""
#: Seconds that the server of these tests gives to heads and to pauses within bodies.
PATIENCE_S = 1.2
BODY_LIMIT = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("hostile")
    return path


@pytest.fixture(scope="module")
def server(front, folder, module_server) -> Server:
    started: Server = module_server(
        HANDLER,
        BYOC_FRONT=front,
        FOLDER=str(folder),
        BYOC_HEADER_TIMEOUT_SECONDS=str(PATIENCE_S),
        BYOC_BODY_TIMEOUT_SECONDS=str(PATIENCE_S),
        BYOC_MAX_BODY_BYTES=str(BODY_LIMIT),
    )
    return started


@pytest.fixture(autouse=True)
def _nothing_is_lost(server: Server) -> Iterator[None]:
    """After each test the same worker serves, and the log has no traceback."""
    workers, logged = server.workers(), len(server.lines)
    yield
    ping = server.ping()
    assert ping is not None
    assert ping.status == 200
    assert server.invoke("abcd", "text/plain").body == b"4"
    assert server.workers() == workers
    assert "Traceback" not in "\n".join(server.lines[logged:])


def connect(server: Server, timeout: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout)


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes."""
    chunks = []
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def ask(server: Server, raw: bytes, *, half_close: bool = False) -> bytes:
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def status_of(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert match, answer[:200]
    return int(match[1])


def error_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert len(body) < 2048
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"code", "message", "request_id"}
    return error


def post(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /invocations HTTP/{version}", "Host: x", "Content-Type: text/plain", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


CHUNKED = "Transfer-Encoding: chunked"
GET = b"GET /ping HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (post(b"4\r\nabcd\r\n0\r\n\r\n", CHUNKED, "Content-Length: 4"), 400),
        (post(b"abcd", "Content-Length: 4", "Content-Length: 5"), 400),
        (post(b"abcd", "Content-Length: 4, 4"), 400),
        (post(b"abcd", "Content-Length: +4"), 400),
        (post(b"abcd", "Content-Length: -4"), 400),
        (post(b"abcd", "Content-Length: 4_0"), 400),
        (post(b"abcd", "Content-Length: 0x4"), 400),
        (post(b"abcd", "Content-Length: " + "9" * 5000), 400),
        (post(b"", "Transfer-Encoding: chunked, identity"), 400),
        (post(b"", "Transfer-Encoding: identity"), 400),
        (post(b"", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
        (post(b"", "Transfer-Encoding: xchunked"), 501),
        (post(b"", "Transfer-Encoding: \x0bchunked"), 400),
        (post(b"0\r\n\r\n", "Transfer-Encoding : chunked"), 400),
        (post(b"0\r\n\r\n", CHUNKED, version="1.0"), 400),
        (post(b"abcd", "Content-Length: 4", "X-Folded: a\r\n b"), 400),
        (post(b"abcd", "Content-Length: 4", "X-Nul: a\x00b"), 400),
        (post(b"abcd", "Content-Length: 4", "X-Cr: a\rb"), 400),
        (post(b"abcd", "Content-Length: 4", "No colon"), 400),
        (post(b"abcd", "Content-Length: 4", ": no name"), 400),
        (post(b"-4\r\nabcd\r\n0\r\n\r\n", CHUNKED), 400),
        (post(b"0x4\r\nabcd\r\n0\r\n\r\n", CHUNKED), 400),
        (post(b"4 \r\nabcd\r\n0\r\n\r\n", CHUNKED), 400),
        (post(b"\r\nabcd\r\n0\r\n\r\n", CHUNKED), 400),
        (post(b"4\nabcd\n0\n\n", CHUNKED), 400),
        (post(b"4\r\nabcdXX0\r\n\r\n", CHUNKED), 400),
        (post(b"4;a=\x00\r\nabcd\r\n0\r\n\r\n", CHUNKED), 400),
        (post(b"4\r\nabcd\r\n0\r\nContent-Length: 3\r\n\r\n", CHUNKED), 400),
        (b"GET /ping HTTP/1.1\nHost: x\n\n", 400),
        (b"GET  /ping HTTP/1.1\r\n\r\n", 400),
        (b"GET /ping\r\n\r\n", 400),
        (b"GET /pi\x00ng HTTP/1.1\r\n\r\n", 400),
        (b"GET /p\xc3\xafng HTTP/1.1\r\n\r\n", 400),
        (b"GET /ping HTTP/3.7\r\n\r\n", 400),
        (b"get /ping HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00\n" * 40 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (GET + b"X-Long: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: a\r\n" % i for i in range(200)) + b"\r\n", 431),
    ],
    ids=lambda value: str(value)[-40:] if isinstance(value, bytes) else None,
)
def test_malformed_http_is_refused_in_json_and_the_connection_closed(
    server: Server, raw: bytes, status: int
):
    # What is smuggled behind must never be answered.
    answer = ask(server, raw + b"GET /ping HTTP/1.1\r\nHost: smuggled\r\n\r\n")
    assert status_of(answer) == status, answer
    assert error_of(answer)["code"]
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (GET + b"\r\n", 200),
        (b"\r\n" + GET + b"\r\n", 200),
        (b"GET http://any.where:80/ping HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /%70ing?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (GET + b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n", 200),
        (GET + b"SCRIPT_NAME: /x\r\nPATH_INFO: /y\r\n\r\n", 200),
        (GET + b"Host\x2dExtra: \xff\xfe\r\n\r\n", 200),
        (b"GET /ping HTTP/1.1\r\nHost: a b<script>\r\n\r\n", 200),
        (b"TRACE /ping HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"BREW /ping HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (post(b"4;name=value;x\r\nabcd\r\n0\r\nX-Trailer: a\r\n\r\n", CHUNKED), 200),
    ],
    ids=lambda value: str(value)[-50:] if isinstance(value, bytes) else None,
)
def test_unusual_but_proper_http_is_answered(server: Server, raw: bytes, status: int):
    answer = ask(server, raw, half_close=True)
    assert status_of(answer) == status, answer
    if status >= 400:
        assert error_of(answer)
        assert status != 405 or b"allow: get, head, post" in answer.lower()


def test_mutated_requests_get_an_answer_or_a_closed_connection(server: Server):
    chance = random.Random(27)
    seeds = [
        GET + b"\r\n",
        post(b"abcd", "Content-Length: 4", "Accept: */*"),
        post(b"4\r\nabcd\r\n0\r\n\r\n", CHUNKED, "Expect: 100-continue"),
    ]
    pieces = [b"\r\n", b"\n", b"\0", b":", b" ", b"\xff", b"chunked", b"99999999999", b"HTTP/1.1"]
    for _ in range(120):
        raw = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(raw))
            raw[place : place + chance.choice([0, 0, 1, 3])] = chance.choice(pieces)
        answer = ask(server, bytes(raw), half_close=True)
        assert not answer or status_of(answer) in {100, *range(200, 500), 501}, (raw, answer)


def test_pipelined_requests_are_answered_in_order(server: Server):
    raw = b"".join(post(b"a" * n, f"Content-Length: {n}") for n in range(1, 9)) + GET + b"\r\n"
    answer = ask(server, raw, half_close=True)
    bodies = re.findall(rb"\r\n\r\n(\d+)HTTP", answer)
    assert bodies == [b"%d" % n for n in range(1, 9)]
    assert answer.endswith(b'{"status": "ready"}')


def test_half_closed_client_gets_its_answer(server: Server):
    answer = ask(server, post(b"abcdefg", "Content-Length: 7"), half_close=True)
    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\n7")


def test_body_that_ends_before_its_length_is_refused(server: Server):
    answer = ask(server, post(b"abc", "Content-Length: 7"), half_close=True)
    assert status_of(answer) in {400, 408}
    assert "body" in error_of(answer)["message"]


def trickle(connection: socket.socket, data: bytes) -> bytes:
    """Send a byte at a time until the server has had enough; its answer."""
    deadline = time.monotonic() + 30
    connection.settimeout(0.1)
    with contextlib.suppress(ConnectionError):
        for position in range(len(data)):
            connection.sendall(data[position : position + 1])
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                assert time.monotonic() < deadline, "the server waits for ever"
            else:
                connection.settimeout(20)
                return chunk + (read_all(connection) if chunk else b"")
    connection.settimeout(20)
    return read_all(connection)


@pytest.mark.parametrize(
    "raw",
    [
        GET + b"X-Slow: " + b"a" * 1000,
        post(b"a" * 1000, "Content-Length: 100000"),
        post(b"1\r\na\r\n" * 200, CHUNKED),
    ],
    ids=["head", "body", "chunked"],
)
def test_slow_clients_get_408_while_others_are_served(server: Server, raw: bytes):
    head = raw.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in raw else 10
    with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        slow = []
        for _ in range(8):
            connection = stack.enter_context(connect(server))
            connection.sendall(raw[:head])
            slow.append(pool.submit(trickle, connection, raw[head:]))
        assert server.request("GET", "/ping").status == 200
        assert server.invoke("abc", "text/plain").body == b"3"
        for answer in [future.result(60) for future in slow]:
            assert status_of(answer) == 408
            assert error_of(answer)["code"] in {"request_timeout", "body_timeout"}
            assert answer.count(b"HTTP/1.1 ") == 1


def test_second_request_on_a_connection_may_not_be_slow_either(server: Server):
    with connect(server) as connection:
        connection.sendall(GET + b"\r\n")
        received = b""
        while b"ready" not in received:
            received += connection.recv(65536)
        answer = trickle(connection, GET + b"X: " + b"a" * 1000)
    assert status_of(answer) == 408


def test_continue_is_sent_only_to_those_that_are_admitted(server: Server):
    with connect(server) as connection:
        connection.sendall(post(b"", "Content-Length: 5", "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abcde")
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.endswith(b"\r\n\r\n5")
    length = f"Content-Length: {BODY_LIMIT + 1}"
    answer = ask(server, post(b"", length, "Expect: 100-continue"))
    assert status_of(answer) == 413
    assert b"100 Continue" not in answer
    answer = ask(server, post(b"abc", "Content-Length: 3", "Expect: 100-continue", version="1.0"))
    assert status_of(answer) == 200


@pytest.mark.parametrize("framing", [f"Content-Length: {40 * BODY_LIMIT}", CHUNKED])
def test_client_that_sends_too_much_gets_to_read_why(server: Server, framing: str):
    body = b"a" * (8 * BODY_LIMIT)
    if framing == CHUNKED:
        body = b"".join(b"%x\r\n%s\r\n" % (65536, b"a" * 65536) for _ in range(120))
    answer = ask(server, post(body, framing))
    assert status_of(answer) == 413
    assert "BYOC_MAX_BODY_BYTES" in error_of(answer)["message"]


def test_chunk_that_promises_more_than_the_limit_is_refused(server: Server):
    answer = ask(server, post(b"fffffffffffffff0\r\nabc", CHUNKED), half_close=False)
    assert status_of(answer) in {400, 408, 413}
    assert error_of(answer)


def test_request_of_a_client_that_is_gone_never_reaches_the_model(server: Server, folder: Path):
    for name in ("go", "seen"):
        (folder / name).unlink(missing_ok=True)
    seen = folder / "seen"
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.invoke, "a" * 99, "text/plain")
        server.wait_until(lambda: seen.exists() and "99" in seen.read_text())
        leaving = [connect(server) for _ in range(3)]
        for connection in leaving:
            connection.sendall(post(b"a" * 77, "Content-Length: 77"))
        staying = connect(server)
        staying.sendall(post(b"a" * 88, "Content-Length: 88"))
        staying.shutdown(socket.SHUT_WR)
        for connection in leaving:
            connection.close()
        began = time.monotonic()
        server.wait_until(lambda: time.monotonic() > began + 4)
        (folder / "go").touch()
        assert running.result(30).status == 200
        with staying:
            answer = read_all(staying)
    # The half-closed client has seen the probe, which means nothing, and then its answer.
    assert answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n88")
    assert server.invoke("ab", "text/plain").body == b"2"
    assert "77" not in seen.read_text()


def rss_mb(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1])
    return total / 1024


def test_thousands_of_idle_and_half_finished_connections_leave_room_for_others(server: Server):
    before = rss_mb(server.workers())
    with contextlib.ExitStack() as stack:
        for number in range(1500):
            connection = stack.enter_context(connect(server))
            if number % 3 == 0:
                connection.sendall(GET)
            elif number % 3 == 1:
                connection.sendall(post(b"abc", "Content-Length: 100"))
        began = time.monotonic()
        assert server.request("GET", "/ping", timeout=10).status == 200
        assert server.invoke("abc", "text/plain", timeout=10).status in {200, 503}
        assert time.monotonic() - began < 10
        assert rss_mb(server.workers()) - before < 150

    def serves() -> bool:
        return server.invoke("abc", "text/plain").status == 200

    server.wait_until(serves)


def test_client_that_does_not_read_its_answer_holds_up_nobody(server: Server):
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(connect(server))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(post(b"large", "Content-Length: 5"))
        assert server.invoke("abc", "text/plain", timeout=20).body == b"3"
        assert server.request("GET", "/ping").status == 200


def test_connections_that_end_badly_do_not_hold_up_new_ones(server: Server):
    """A refused client that never closes is lingered over, but not in the accepting thread."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(server)).sendall(b"nonsense\r\n\r\n")
        began = time.monotonic()
        threads = [threading.Thread(target=server.ping) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        # Twenty times two seconds, were they closed one after the other.
        assert time.monotonic() - began < 20
