"""kill -9 of the model process, again and again, under load: what fails, and for how long.

Starts a server of the isolated topology on a free port, lets clients ask without a pause, kills the
model process a number of times, and prints one JSON object. Exit code 1 when a request failed, an
answer was wrong, or ``/ping`` said anything but 200.

    python benchmarks/chaos/kill_model.py --kills 100 --clients 8
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

#: Takes its time, so that a kill finds requests running.
HANDLER = """
import time
import torch
def model_fn(model_dir):
    return torch.nn.Identity()
def predict_fn(data, model):
    time.sleep(0.01)
    return model(data)
"""


class Clients:
    """Threads that ask; what came of each request.

    Args:
        port: the server's.
        count: how many.
    """

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.good = 0
        self.bad: list[str] = []
        self.slowest_s = 0.0
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(count)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until every request has its answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        count = 0
        with contextlib.closing(connection):
            while not self._stop.is_set():
                count += 1
                rows = [[float(number), float(count)]] * (1 + count % 3)
                began = time.monotonic()
                try:
                    connection.request("POST", "/invocations", json.dumps(rows))
                    response = connection.getresponse()
                    body = response.read()
                    right = response.status == 200 and json.loads(body) == rows
                    problem = None if right else f"{response.status} {body[:200]!r}"
                except (OSError, http.client.HTTPException) as error:
                    problem = repr(error)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if problem is None:
                    self.good += 1
                else:
                    self.bad.append(problem)


def model_processes(master: int) -> list[int]:
    """Children of the master that have torch mapped."""
    found = []
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{master}/task/{master}/children").read_text().split():
            with contextlib.suppress(OSError):
                if "libtorch" in Path(f"/proc/{word}/maps").read_text():
                    found.append(int(word))
    return found


def ping(port: int) -> int:
    """The status; 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


def wait(what: str, condition: Any, seconds: float = 300.0) -> None:
    """Wait for a condition.

    Raises:
        SystemExit: it did not come in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the values does not exceed."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--between", type=int, default=50, help="answers between two kills")
    parser.add_argument(
        "--model", type=Path, help="a BYOC_ROOT; default: one that echoes after 10 ms"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.model or Path(folder)
        if options.model is None:
            (root / "model" / "code").mkdir(parents=True)
            (root / "model" / "code" / "inference.py").write_text(HANDLER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        variables = {
            **os.environ,
            "BYOC_ROOT": str(root),
            "BYOC_HOST": "127.0.0.1",
            "BYOC_TOPOLOGY": "isolated",
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        serve = Path(sys.executable).with_name("serve")
        log = (Path(folder) / "log").open("w+")
        server = subprocess.Popen([str(serve)], env=variables, stderr=log, stdout=log)
        try:
            report = chaos(server, port, options)
            server.terminate()
            report["exit_code"] = server.wait(60)
        finally:
            if server.poll() is None:
                server.kill()
        log.seek(0)
        text = log.read()
        report["replayed"] = sum(
            int(line.split("] ", 1)[1].split()[0])
            for line in text.splitlines()
            if "are asked again" in line
        )
    print(json.dumps(report, indent=2))
    return 1 if report["failed"] or report["pings_not_200"] or report["exit_code"] else 0


def chaos(
    server: subprocess.Popen[bytes], port: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The kills, and what came of them."""
    began = time.monotonic()
    wait("ready", lambda: ping(port) == 200)
    start_s = time.monotonic() - began
    back: list[float] = []
    pings: list[int] = []
    chance = random.Random(0)
    clients = Clients(port, options.clients)
    clients.start()
    try:
        for _ in range(options.kills):
            enough = clients.good + chance.randint(1, options.between)
            wait("answers", lambda enough=enough: clients.good >= enough)
            (victim,) = model_processes(server.pid)
            os.kill(victim, signal.SIGKILL)
            killed, before = time.monotonic(), clients.good
            # Answers that were on their way may still arrive: as many as there are clients.
            wait("back", lambda before=before: clients.good > before + 2 * options.clients)
            back.append(time.monotonic() - killed)
            pings.append(ping(port))
    finally:
        clients.stop()
    return {
        "kills": options.kills,
        "answers": clients.good,
        "failed": len(clients.bad),
        "first_failures": clients.bad[:5],
        "pings_not_200": sum(status != 200 for status in pings),
        "start_to_ready_s": round(start_s, 3),
        "back_s_p50": percentile(back, 0.5),
        "back_s_max": percentile(back, 1.0),
        "slowest_request_s": round(clients.slowest_s, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
