"""The relay through which containers reach the endpoint."""

from __future__ import annotations

import socket
import threading

import pytest

from byoc.local.relay import Relay
from tests.local.conftest import eventually

#: An address of this machine that the endpoint does not listen on.
GATEWAY = "127.0.0.9"


@pytest.fixture
def port():
    """A server that answers what it got, in capitals, once the peer has said all."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(everything(connection).upper())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def ask(address: tuple[str, int], content: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def address_of(relay: Relay) -> tuple[str, int]:
    host, _, port = relay.url.removeprefix("http://").partition(":")
    return host, int(port)


def test_both_directions_are_handed_on_to_their_end(port):
    relay = Relay(GATEWAY, port)
    content = b"some bytes " * 200_000
    assert address_of(relay)[0] == GATEWAY
    assert ask(address_of(relay), content) == content.upper()
    relay.close()


def test_a_closed_relay_takes_no_connection(port):
    relay = Relay(GATEWAY, port)
    relay.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address_of(relay), timeout=5)


def test_an_endpoint_that_is_gone_ends_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    relay = Relay(GATEWAY, port)
    with socket.create_connection(address_of(relay), timeout=5) as connection:
        assert connection.recv(1) == b""
    relay.close()


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(OSError, match="assign"):
        Relay("192.0.2.1", 1)


def test_nothing_is_left_when_connections_have_ended(port):
    before = threading.active_count()
    relay = Relay(GATEWAY, port)
    for _ in range(5):
        ask(address_of(relay), b"x")
    relay.close()
    eventually(lambda: threading.active_count() <= before)
