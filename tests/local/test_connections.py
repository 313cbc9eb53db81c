"""HTTP to a container, against a socket that says what the test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from byoc.local.hosting.connections import Connections
from byoc.local.hosting.wire import ExchangeError, LateError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Peer:
    """Answers each request with the next of what it was given; then closes."""

    def __init__(self, answers: list[bytes | Callable[[socket.socket], None]]) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = ("127.0.0.1", self._server.getsockname()[1])
        self.accepted = 0
        self.received: list[bytes] = []
        self._answers = answers
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while self._answers:
                channel, _ = self._server.accept()
                self.accepted += 1
                with channel:
                    self._talk(channel)

    def _talk(self, channel: socket.socket) -> None:
        while self._answers:
            request = self._request(channel)
            if request is None:
                return
            self.received.append(request)
            answer = self._answers.pop(0)
            if callable(answer):
                answer(channel)
                return
            channel.sendall(answer)

    @staticmethod
    def _request(channel: socket.socket) -> bytes | None:
        content = b""
        while b"\r\n\r\n" not in content:
            chunk = channel.recv(65536)
            if not chunk:
                return None
            content += chunk
        head, _, body = content.partition(b"\r\n\r\n")
        if b"chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += channel.recv(65536)
        else:
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += channel.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., tuple[Peer, Connections]]]:
    with contextlib.ExitStack() as stack:

        def make(*answers: bytes | Callable[[socket.socket], None]) -> tuple[Peer, Connections]:
            made = Peer([*answers])
            connections = Connections(made.address)
            stack.callback(made.close)
            stack.callback(connections.close)
            return made, connections

        yield make


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-One: 1\r\n\r\nok"


def test_a_connection_is_kept_for_the_next_request(peer):
    made, connections = peer(OK, OK)
    for _ in range(2):
        reply = connections.ask("POST", "/x", {"Content-Type": "a/b"}, b"body", 5)
        assert (reply.status, reply.body, reply.headers["x-one"]) == (200, b"ok", "1")
    assert made.accepted == 1
    assert made.received[0].startswith(b"POST /x HTTP/1.1\r\nHost: ")
    assert made.received[0].endswith(b"Content-Type: a/b\r\nContent-Length: 4\r\n\r\nbody")
    assert connections.in_flight == 0


def test_chunks_are_handed_on_as_they_arrive(peer):
    gate = threading.Event()

    def answer(channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\none\r\n")
        gate.wait(5)
        channel.sendall(b"3\r\ntwo\r\n0\r\nTrailer: x\r\n\r\n")

    _, connections = peer(answer)
    found = connections.open("POST", "/", {}, b"", 5)
    chunks = found.chunks()
    assert next(chunks) == b"one"
    assert connections.in_flight == 1
    gate.set()
    assert b"".join(chunks) == b"two"
    found.close()
    found.close()
    assert connections.in_flight == 0


def test_a_body_of_unknown_length_is_sent_in_chunks(peer):
    made, connections = peer(OK)
    assert connections.ask("POST", "/", {}, iter([b"ab", b"", b"c" * 20]), 5).status == 200
    assert made.received[0].endswith(b"\r\n\r\n2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n")


def test_an_informational_answer_comes_before_the_answer(peer):
    _, connections = peer(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert connections.ask("POST", "/", {}, b"", 5).body == b"ok"


def test_an_answer_without_length_ends_with_its_connection(peer):
    made, connections = peer(lambda channel: channel.sendall(b"HTTP/1.1 200 OK\r\n\r\nall"), OK)
    assert connections.ask("POST", "/", {}, b"", 5).body == b"all"
    assert connections.ask("POST", "/", {}, b"", 5).body == b"ok"
    assert made.accepted == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SMTP ready\r\n\r\n",
    ],
    ids=["nothing", "cut-off", "no-length", "no-chunk-size", "no-http"],
)
def test_an_answer_that_is_none_is_told_and_its_request_is_not_sent_again(peer, answer):
    made, connections = peer(OK, lambda channel: channel.sendall(answer), OK)
    connections.ask("POST", "/", {}, b"", 5)
    with pytest.raises(ExchangeError):
        connections.ask("POST", "/", {}, b"poison", 5)
    assert [request.endswith(b"poison") for request in made.received] == [False, True]
    assert connections.in_flight == 0


def test_a_late_answer_is_given_up_also_when_it_drips(peer):
    def drip(channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(100):
                channel.sendall(b"x")
                time.sleep(0.02)

    _, connections = peer(drip)
    begun = time.monotonic()
    with pytest.raises(LateError):
        connections.ask("POST", "/", {}, b"", 0.3)
    assert 0.25 < time.monotonic() - begun < 1.5


def test_a_refused_connection_is_told_apart():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with pytest.raises(UnreachableError):
        Connections(address).ask("POST", "/", {}, b"", 5)


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(peer):
    def once(channel: socket.socket) -> None:
        channel.sendall(OK)

    made, connections = peer(once, OK)
    connections.ask("POST", "/", {}, b"", 5)
    time.sleep(0.1)
    assert connections.ask("POST", "/", {}, b"", 5).body == b"ok"
    assert made.accepted == 2


def test_an_answer_to_a_body_that_was_not_read_is_seen(peer):
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        channel, _ = server.accept()
        with channel:
            channel.recv(1024)
            channel.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nlong")
            channel.shutdown(socket.SHUT_WR)
            while channel.recv(1 << 20):
                pass

    threading.Thread(target=answer, daemon=True).start()
    with server, contextlib.closing(Connections(server.getsockname())) as connections:
        reply = connections.ask("POST", "/", {}, b"x" * 30_000_000, 5)
    assert (reply.status, reply.body) == (413, b"long")


def test_no_header_value_can_end_its_line(peer):
    made, connections = peer(OK)
    connections.ask("POST", "/", {"Accept": "a\r\nEvil: 1"}, b"", 5)
    assert b"Accept: aEvil: 1\r\n" in made.received[0]
