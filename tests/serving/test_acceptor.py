"""Connections spread over the workers, whatever the order in which a client opens them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byoc_serving.acceptor import Acceptor, Doors


def open_sockets(pid: int) -> int:
    """Sockets that a process has open."""
    links = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links += str(link.readlink()).startswith("socket:")
    return links


@pytest.mark.contract(56)
def test_a_pool_of_connections_is_shared_by_all_workers(start, model_root):
    server = start(model_root("model_fn = lambda _: lambda x: x"), **TWO_WORKERS).wait_ready()
    workers = server.workers()
    # The connection of the start-up's last ping may still be open in one of them.
    server.wait_until(lambda: len({open_sockets(pid) for pid in workers}) == 1)
    before = {pid: open_sockets(pid) for pid in workers}
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port))
            )
            for _ in range(20)
        ]
        for client in clients:
            client.connect()
        for client in clients:
            client.request("GET", "/ping")
            assert client.getresponse().read() == b'{"status": "ready"}'
        counts = [open_sockets(pid) - before[pid] for pid in workers]
        assert min(counts) >= 7, counts


TWO_WORKERS = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "BYOC_FRONT": "asgi"}


def test_doors_forget_the_dead():
    doors = Doors(2)
    doors.put(1, os.getpid(), 7)
    assert doors.least(os.getpid()) is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        doors.put(2, other.pid, 3)
        assert doors.least(os.getpid()) == 3
        assert doors.least(other.pid) == 7
        other.kill()
    assert doors.least(os.getpid()) is None


class Accepted(asyncio.Protocol):
    """Notes the connections that it was made for."""

    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(transport)


@contextlib.asynccontextmanager
async def accepting(doors: Doors, listener: Any):
    made: list[Any] = []
    loop = asyncio.get_running_loop()
    acceptor = Acceptor(loop, [listener], lambda: Accepted(made), doors, 1, lambda: len(made))
    acceptor.start()
    try:
        yield acceptor, made
    finally:
        acceptor.stop()
        for transport in made:
            transport.abort()


def listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    return listener


async def until(condition: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


def test_connection_that_nobody_else_takes_is_taken_after_a_moment():
    async def run() -> None:
        doors = Doors(2)
        # A live process that never accepts, and has fewer connections than this one will have.
        doors.put(2, os.getppid(), 0)
        with listening() as listener:
            address = listener.getsockname()
            async with accepting(doors, listener) as (_, made):
                with contextlib.ExitStack() as stack:
                    for number in range(1, 4):
                        stack.enter_context(socket.create_connection(address))
                        await until(lambda number=number: len(made) == number)

    asyncio.run(run())


def test_connections_that_wait_are_taken_when_the_worker_stops():
    async def run() -> None:
        with listening() as listener:
            address = listener.getsockname()
            async with accepting(Doors(1), listener) as (acceptor, made):
                with contextlib.ExitStack() as stack:
                    for _ in range(5):
                        stack.enter_context(socket.create_connection(address))
                    acceptor.stop()
                    assert made == []
                    await acceptor.finish(for_all=True)
                    assert len(made) == 5
                # Another process may have it open: it must be deaf all the same.
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address)

    asyncio.run(run())


def test_exhausted_descriptors_pause_accepting_and_do_not_end_it(caplog):
    class Short:
        """A listener that fails once as accept does when the descriptors run out."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real
            self.failures = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def accept(self) -> Any:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return self.real.accept()

    async def run() -> None:
        with listening() as listener:
            async with accepting(Doors(1), Short(listener)) as (_, made):
                with socket.create_connection(listener.getsockname()):
                    await until(lambda: len(made) == 1)

    asyncio.run(run())
    assert caplog.text.count("no more connections for a moment: Too many open files") == 1
