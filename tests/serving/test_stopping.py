"""How servers stop: SIGTERM idle, loading and under load, and as PID 1."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serving.gated import ECHO, descendants, held_request, starter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.serving.conftest import Server


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


@pytest.fixture
def gated(start, model_root, gate, front) -> Callable[..., Server]:
    return starter(start, model_root, gate, front)


@pytest.mark.contract(69)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_stops_within_a_moment_with_exit_code_0(shared_copy, number):
    server = shared_copy()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as idle:
        idle.request("GET", "/ping")
        idle.getresponse().read()
        began = time.monotonic()
        assert server.terminate(number) == 0
        assert time.monotonic() - began < 3
    assert server.ping() is None


@pytest.fixture
def shared_copy(start, model_root, front) -> Callable[[], Server]:
    def begin() -> Server:
        server: Server = start(model_root(ECHO), BYOC_FRONT=front).wait_ready()
        return server

    return begin


@pytest.mark.contract(69)
def test_sigterm_refuses_new_connections_and_answers_running_and_queued_requests(gated, gate):
    (gate / "load").touch()
    server = gated().wait_ready()
    with held_request(server, gate), ThreadPoolExecutor(4) as pool:
        queued = [pool.submit(server.invoke, "[[1]]") for _ in range(4)]
        # All four are inside once the worker holds their connections.
        server.wait_until(lambda: established(server.port) >= 5)
        server.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            except (ConnectionRefusedError, ConnectionResetError):
                return True
            return False

        server.wait_until(refused, 5)
        assert server.process.poll() is None
        (gate / "predict").touch()
        assert [future.result().status for future in queued] == [200] * 4
    assert server.wait_end(10) == 0


def established(port: int) -> int:
    """Connections that the server has on its port."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(f[1].endswith(wanted) and f[3] == "01" for f in fields)


@pytest.mark.contract(69)
def test_sigterm_while_loading_ends_at_once_with_exit_code_0(gated, gate):
    server = gated()
    server.wait_until((gate / "load.reached").exists)
    began = time.monotonic()
    assert server.terminate() == 0, server.log
    assert time.monotonic() - began < 5


@pytest.mark.contract(69)
def test_sigterm_under_load_loses_no_accepted_request(shared_copy):
    server = shared_copy()
    stop = threading.Event()
    outcomes: list[str] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        with contextlib.closing(connection):
            while not stop.is_set():
                try:
                    connection.connect()
                except ConnectionError:
                    return
                try:
                    for _ in range(50):
                        connection.request("POST", "/invocations", "[[1, 2]]")
                        response = connection.getresponse()
                        ok = response.status == 200 and json.loads(response.read()) == [[1.0, 2.0]]
                        outcomes.append("ok" if ok else f"status {response.status}")
                        if response.will_close:
                            break
                except (ConnectionError, http.client.HTTPException) as error:
                    outcomes.append(repr(error))
                connection.close()

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    server.wait_until(lambda: len(outcomes) > 200)
    assert server.terminate() == 0
    stop.set()
    for thread in threads:
        thread.join(30)
    lost = [outcome for outcome in outcomes if outcome != "ok"]
    # A connection that the kernel had accepted and no process had is reset by the kernel.
    assert len(lost) <= 8
    assert not [outcome for outcome in lost if outcome.startswith("status")]


@pytest.mark.contract(69)
def test_as_pid_1_sigterm_ends_with_exit_code_0_and_orphans_are_reaped(start, model_root, front):
    handler = """
        import subprocess, torch
        def model_fn(model_dir):
            # The grandchild outlives its parent and becomes PID 1's.
            subprocess.run(["sh", "-c", "sleep 0.1 &"], check=True)
            return torch.nn.Identity()
    """
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespaces here")
    serve = Path(sys.executable).with_name("serve")
    server = start(model_root(handler), [*unshare, str(serve)], BYOC_FRONT=front).wait_ready()
    (first,) = descendants(server.process.pid)[:1]
    server.wait_until(lambda: not any(zombie(pid) for pid in descendants(first)))
    os.kill(first, signal.SIGTERM)
    assert server.wait_end(10) == 0


def zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return False
