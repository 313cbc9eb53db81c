"""The isolated topology: nothing is lost when a model process dies, hangs or cannot come back."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.serving.conftest import Answer, Server

#: Files decide what happens: a load or a request waits for one, a load fails because of one.
HANDLER = """
    import os, pathlib, time
    import torch
    from byoc_serving import encode
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
    def predict_fn(data, model):
        values = data[:, 0].tolist()
        with (GATE / "runs").open("a") as log:
            log.writelines(f"{os.getpid()} {value}\\n" for value in values)
        if 99 in values:
            wait("predict")
        if 66 in values:
            os.kill(os.getpid(), 9)
        if 55 in values:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if 44 in values:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried too much")
        return model(data)
    def output_fn(prediction, accept, context):
        context.custom_attributes = context.custom_attributes[::-1]
        return encode(prediction, accept)
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


def runs(gate: Path, value: float) -> set[int]:
    """The processes that ran a request."""
    lines = [line.split() for line in (gate / "runs").read_text().splitlines()]
    return {int(pid) for pid, seen in lines if float(seen) == value}


@pytest.fixture(scope="module")
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.mark.contract(67, 72)
def test_only_the_request_that_kills_or_hangs_its_process_fails(isolated, gate, crowd):
    server = isolated(BYOC_FORWARD_TIMEOUT_SECONDS="3", BYOC_MAX_BATCH_SIZE="8").wait_ready()
    answer = server.invoke("[[5]]", headers={"X-Amzn-SageMaker-Custom-Attributes": "abc"})
    assert (answer.json, answer.headers["x-amzn-sagemaker-custom-attributes"]) == ([[5.0]], "cba")

    def among_neighbours(value: int) -> Answer:
        asked = [crowd.submit(server.invoke, f"[[{number}]]") for number in range(6)]
        guilty = crowd.submit(server.invoke, f"[[{value}]]")
        asked += [crowd.submit(server.invoke, f"[[{number}]]") for number in range(6, 12)]
        for number, future in enumerate(asked):
            neighbour = future.result()
            assert (neighbour.status, neighbour.json) == (200, [[float(number)]])
        answer: Answer = guilty.result()
        ping = server.ping(30)
        assert ping is not None
        assert ping.status == 200
        return answer

    killer = among_neighbours(66)
    assert (killer.status, len(runs(gate, 66))) == (500, 2)
    assert "died 2 times" in killer.error

    device = among_neighbours(55)
    assert (device.status, len(runs(gate, 55))) == (500, 2)

    memory = among_neighbours(44)
    assert (memory.status, memory.json["error"]["code"]) == (503, "out_of_memory")
    assert len(runs(gate, 44)) == 1

    hung = among_neighbours(99)
    assert hung.status == 504
    assert 1 <= len(runs(gate, 99)) <= 2
    assert "BYOC_FORWARD_TIMEOUT_SECONDS" in hung.error
    assert "hangs" in server.log
    assert server.invoke("[[7]]").json == [[7.0]]


@pytest.mark.contract(59, 72)
def test_replacement_that_cannot_load_ends_the_server_and_answers_what_waited(
    isolated, gate, crowd
):
    server = isolated().wait_ready()
    held = crowd.submit(server.invoke, "[[99]]")
    server.wait_until((gate / "predict.reached").exists)
    (gate / "broken").touch()
    os.kill(model_process(server), signal.SIGKILL)
    assert held.result().status == 503
    assert "the weights are gone" in held.result().error
    assert server.wait_end() == 3, server.log
    assert "the weights are gone" in server.lines[-1]
    assert server.log.count("attempt") == 2


@pytest.mark.contract(56, 58, 69)
def test_fronts_listen_at_once_and_a_stop_answers_what_waits_for_a_replacement(
    isolated, gate, crowd
):
    (gate / "load").unlink()
    server = isolated()
    server.wait_until((gate / "load.reached").exists, 60)
    ping = server.ping(30)
    assert ping is not None
    assert ping.status == 503
    assert "0 of 1 workers ready" in ping.json["cause"]
    refused = server.invoke("[[1]]")
    assert (refused.status, refused.json["error"]["code"]) == (503, "loading")
    (gate / "load").touch()
    server.wait_ready()
    (gate / "load").unlink()
    (gate / "load.reached").unlink()
    os.kill(model_process(server), signal.SIGKILL)
    server.wait_until((gate / "load.reached").exists, 60)
    waiting = crowd.submit(server.invoke, "[[1]]")
    ping = server.ping(30)
    assert ping is not None
    assert ping.status == 200
    server.wait_until(lambda: established(server.port) >= 1)
    server.process.send_signal(signal.SIGTERM)
    (gate / "load").touch()
    assert (waiting.result().status, waiting.result().json) == (200, [[1.0]])
    assert server.wait_end(60) == 0, server.log


def established(port: int) -> int:
    """Connections that the server has on its port."""
    wanted = f":{port:04X}"
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(f[1].endswith(wanted) and f[3] == "01" for f in fields)


def fronts(server: Server) -> set[int]:
    """The HTTP processes: children of the master that hold its listening socket."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{server.port:04X}"
    doors = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "0A"}
    path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return {int(word) for word in path.read_text().split() if doors & open_files(int(word))}


def open_files(pid: int) -> set[str]:
    """What a process's descriptors stand for."""
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return found


@pytest.mark.contract(72, 73)
def test_stop_takes_the_end_of_the_model_process_for_no_crash(isolated):
    server = isolated().wait_ready()
    assert server.invoke("[[1]]").status == 200
    assert server.terminate() == 0
    assert "ERROR" not in server.log


def test_killed_front_takes_its_own_connections_only_and_its_memory_comes_back(
    isolated, gate, crowd
):
    body = npy(np.full((1, 4000), 8, dtype=np.float32))
    server = isolated(
        BYOC_FRONT_PROCESSES="1", BYOC_SHARED_BYTES="40000", BYOC_QUEUE_SIZE="8"
    ).wait_ready()
    held = crowd.submit(server.invoke, "[[99]]")
    server.wait_until((gate / "predict.reached").exists)
    # Two bodies of 16 kB fit, a third finds the arena full; one larger than all of it has its
    # own way.
    asked = [crowd.submit(server.invoke, body, "application/x-npy") for _ in range(3)]
    server.wait_until(lambda: any(future.done() for future in asked))
    (full,) = [future.result() for future in asked if future.done()]
    assert (full.status, full.json["error"]["code"]) == (503, "full")
    assert "shared memory" in full.error
    large = npy(np.full((2, 10000), 8, dtype=np.float32))
    asked = [future for future in asked if not future.done()]
    asked.append(crowd.submit(server.invoke, large, "application/x-npy"))
    server.wait_until(lambda: established(server.port) >= 4)
    (front,) = fronts(server)
    os.kill(front, signal.SIGKILL)
    for future in (held, *asked):
        with pytest.raises((OSError, http.client.HTTPException)):
            future.result()
    (gate / "predict").touch()
    server.wait_until(lambda: fronts(server) - {front}, 60)
    for data in (body, body, large):
        answer = server.invoke(data, "application/x-npy", "application/x-npy")
        assert answer.status == 200
        assert np.array_equal(np.load(io.BytesIO(answer.body)), np.load(io.BytesIO(data)))
    assert "crashed" in server.log
    assert server.terminate() == 0


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
