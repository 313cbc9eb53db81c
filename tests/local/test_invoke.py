"""What a caller is told, from containers that are sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local.faults import AwsError
from byoc.local.hosting.connections import Connections
from byoc.local.hosting.instance import Instance
from byoc.local.hosting.invoke import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Container:
    """As much of a container as an invocation needs."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.connections = Connections(address)
        self.ready, self.starts = True, 1

    def failed(self) -> None:
        self.ready = False


class Variant:
    """As much of a variant."""

    name, models, serverless, direct = "all", None, False, False

    def __init__(self, *containers: Container) -> None:
        self.containers = containers

    def pick(self, _: str | None = None) -> Instance | None:
        made = (Instance("all/i-1", {"c": one}) for one in self.containers)  # type: ignore[dict-item]
        return next((one for one in made if one.ready), None)


class Fleet:
    """As much of a fleet."""

    def __init__(self, *containers: Container) -> None:
        self.one = Variant(*containers)

    def variant(self, name: str | None) -> Variant | None:
        return self.one if name in (None, "all") else None


@pytest.fixture
def container() -> Iterator[Callable[[bytes | None], Container]]:
    """Makes containers that answer every request so; None: that refuse connections."""
    with contextlib.ExitStack() as stack:

        def serve(server: socket.socket, answer: bytes) -> None:
            with contextlib.suppress(OSError):
                while True:
                    channel, _ = server.accept()
                    with channel:
                        channel.recv(65536)
                        channel.sendall(answer)
                        if not answer:
                            channel.recv(65536)  # until the client gives up

        def make(answer: bytes | None) -> Container:
            server = socket.create_server(("127.0.0.1", 0))
            made = Container(server.getsockname())
            stack.callback(made.connections.close)
            stack.callback(server.close)
            if answer is None:
                server.close()
            else:
                threading.Thread(target=serve, args=(server, answer), daemon=True).start()
            return made

        yield make


def ask(*containers: Container, seconds: float = 5, **members: str) -> Any:
    return Invocation("name", "eu-central-1", members, b"body", seconds).ask(
        Fleet(*containers)  # type: ignore[arg-type]
    )


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def test_a_container_that_refuses_connections_is_passed_over(container):
    dead, alive = container(None), container(OK)
    assert ask(dead, alive).body == b"ok"
    assert (dead.ready, alive.ready) == (False, True)


def test_without_any_container_the_service_is_unavailable(container):
    dead = container(None)
    for _ in range(2):
        with pytest.raises(AwsError) as raised:
            ask(dead)
        assert (raised.value.code, raised.value.status) == ("ServiceUnavailable", 503)


def test_an_answer_that_is_late_is_a_model_error(container):
    with pytest.raises(AwsError) as raised:
        ask(container(b""), seconds=0.3)
    error = raised.value
    assert (error.code, error.status, error.members["OriginalStatusCode"]) == ("ModelError", 424, 0)
    assert "timed out" in error.members["OriginalMessage"]
    assert "longer than 0.3 seconds" in error.message


def test_an_answer_that_breaks_off_is_a_model_error(container):
    with pytest.raises(AwsError) as raised:
        ask(container(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"))
    assert raised.value.code == "ModelError"
    assert "no complete response" in raised.value.message


def test_a_redirect_is_no_answer(container):
    with pytest.raises(AwsError) as raised:
        ask(container(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"))
    assert raised.value.members["OriginalStatusCode"] == 302
    assert raised.value.members["LogStreamArn"] == (
        "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/sagemaker/Endpoints/name:"
        "log-stream:all/i-1"
    )


def test_an_unknown_variant_is_not_found(container):
    with pytest.raises(AwsError, match="Variant other of endpoint name"):
        ask(container(OK), TargetVariant="other")
