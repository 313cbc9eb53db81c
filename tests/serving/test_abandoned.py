"""Requests whose clients have left, between a front and a model process (isolated topology)."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from byoc_serving import drivers, wire
from byoc_serving.arena import Arena
from byoc_serving.exchange import Invocation, Response
from byoc_serving.link import Link
from byoc_serving.model_process import ModelProcess, Place
from byoc_serving.peer import Peer, Pending
from byoc_serving.running import Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        listening.settimeout(60)
        yield listening


def run(identifier: int) -> wire.Message:
    deadline = float("inf")
    enclosed: tuple[Any, ...] = ("application/json", "", "", f"id-{identifier}", deadline, [], None)
    return (wire.RUN, identifier, False, None, -1, 2, b"[]", enclosed)


def receive(sock: socket.socket, wanted: int) -> list[wire.Message]:
    """At least so many messages, without those that say hello."""
    reader = wire.Reader()
    found: list[wire.Message] = []
    while len(found) < wanted:
        data = sock.recv(65536)
        assert data, "the other end has closed"
        found += [message for message in reader.feed(data) if message[0] != wire.HELLO]
    return found


def test_model_process_answers_what_nobody_waits_for_without_running_it(listener):
    ran: list[str] = []

    def answer(batch: list[Invocation]) -> list[Response]:
        ran.extend(invocation.request_id for invocation in batch)
        return [Response(200, b"[]") for _ in batch]

    engine: Any = SimpleNamespace(
        max_batch_items=1, decodes_itself=False, plain=False, device="cpu", device_lost=False,
        handler=SimpleNamespace(origin="here", bidirectional_paths=()), run=answer,
    )  # fmt: skip
    place = Place(0, 0, listener, Arena(1, 1, 65536, 65536), Running(1))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as front:
        front.settimeout(60)
        front.connect(listener.getsockname())
        link = Link(front)
        for message in ((wire.HELLO, 0), run(1), run(2), run(3), (wire.CANCEL, 2)):
            link.queue(message)
        assert link.flush()
        process = ModelProcess(place, engine, lambda: True)
        thread = threading.Thread(target=process.serve, args=(lambda: None,))
        thread.start()
        answers = receive(front, 3)
    thread.join(60)
    assert not thread.is_alive()
    assert {message[1]: message[2] for message in answers} == {1: 200, 2: 499, 3: 200}
    assert ran == ["id-1", "id-3"]


def test_front_tells_the_model_process_of_clients_that_have_left(listener):
    driver = drivers.choose("test", None)
    peer = Peer(0, listener.getsockname(), 0, 60, lambda *_: None, lambda *_: None)
    peer.start(driver)
    try:
        process, _ = listener.accept()
        with process:
            process.settimeout(60)
            futures: list[Future[Response]] = [Future(), Future()]
            for number, future in enumerate(futures, 1):
                invocation = Invocation([])
                invocation.future = future
                peer.send(Pending(invocation, run(number), -1, 2))
            assert [message[:2] for message in receive(process, 2)] == [
                (wire.RUN, 1),
                (wire.RUN, 2),
            ]
            futures[1].cancel()
            driver.soon(peer.sweep)
            assert receive(process, 1) == [(wire.CANCEL, 2)]
    finally:
        peer.close()
        driver.close()
