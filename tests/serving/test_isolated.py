"""The isolated topology: nothing is lost when a model process dies, hangs or cannot come back."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.serving.conftest import Server

#: Files decide what happens: a load or a request waits for one, a load fails because of one.
HANDLER = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path(os.environ["GATE"])
    def wait(name):
        (GATE / f"{name}.reached").touch()
        while not (GATE / name).exists():
            time.sleep(0.005)
    def model_fn(model_dir):
        if (GATE / "broken").exists():
            raise OSError("the weights are gone")
        wait("load")
        return torch.nn.Identity()
    def predict_fn(data, model, context):
        with (GATE / "runs").open("a") as log:
            log.write(f"{os.getpid()} {float(data[0, 0])}\\n")
        if data[0, 0] == 99:
            wait("predict")
        if data[0, 0] == 66:
            os.kill(os.getpid(), 9)
        if data[0, 0] == 55:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if data[0, 0] == 44:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")
        context.custom_attributes = context.custom_attributes[::-1]
        return model(data)
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "load").touch()
    return folder


@pytest.fixture
def isolated(start, model_root, gate, front) -> Callable[..., Server]:
    def begin(handler: str = HANDLER, **environ: str) -> Server:
        server: Server = start(
            model_root(handler),
            GATE=str(gate),
            BYOC_FRONT=front,
            BYOC_TOPOLOGY="isolated",
            **environ,
        )
        return server

    return begin


def model_process(server: Server) -> int:
    """The living model process; waits for it."""
    found: list[int] = []

    def alive() -> bool:
        found[:] = server.workers()
        return len(found) == 1

    server.wait_until(alive, 60)
    return found[0]


@contextlib.contextmanager
def load(server: Server, clients: int = 8) -> Iterator[list[str]]:
    """Clients that ask without a pause; what came of each request."""
    outcomes: list[str] = []
    stop = threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        with contextlib.closing(connection):
            count = 0
            while not stop.is_set():
                count += 1
                rows = [[float(number), float(count)]] * (1 + count % 3)
                try:
                    connection.request("POST", "/invocations", json.dumps(rows))
                    response = connection.getresponse()
                    body = response.read()
                    right = response.status == 200 and json.loads(body) == rows
                    outcomes.append("ok" if right else f"{response.status} {body[:200]!r}")
                except (OSError, http.client.HTTPException) as error:
                    outcomes.append(repr(error))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        for thread in threads:
            thread.join(150)


@pytest.mark.contract(58, 72)
def test_model_process_killed_again_and_again_under_load_fails_no_request(start, model_root, front):
    kills = int(os.environ.get("BYOC_TEST_KILLS", "3"))
    handler = """
        import torch
        def model_fn(model_dir): return torch.nn.Identity()
    """
    server = start(
        model_root(handler), BYOC_FRONT=front, BYOC_TOPOLOGY="isolated", BYOC_FRONT_PROCESSES="2"
    ).wait_ready()
    pings: list[int] = []
    with load(server) as outcomes:
        for _ in range(kills):
            before = len(outcomes)
            server.wait_until(lambda before=before: len(outcomes) > before + 50, 60)
            pid = model_process(server)
            os.kill(pid, signal.SIGKILL)
            while server.workers() in ([], [pid]):
                answer = server.ping(30)
                pings.append(answer.status if answer else 0)
        before = len(outcomes)
        server.wait_until(lambda: len(outcomes) > before + 50, 60)
    assert [outcome for outcome in outcomes if outcome != "ok"] == []
    assert set(pings) <= {200}
    assert server.log.count("signal SIGKILL") == kills
    assert server.terminate() == 0
