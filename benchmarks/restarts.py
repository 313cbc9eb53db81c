"""Stopping under load, again and again: is every accepted request answered?

``python -m benchmarks.restarts stop --times 100``: one server, SIGTERM under load. A connection
that is refused after the signal was never accepted; everything else must be answered, with 200 or
with a 503 that says so, and the server must end with 0 in 25 seconds.

``python -m benchmarks.restarts roll --times 100``: two servers behind HAProxy, restarted in turn
under load; clients talk to the proxy alone, and no request of theirs may fail. The proxy may only
try the other server when a connection cannot be made or the answer is 503 (it was not processed).

With ``--server byoc+docker`` each server is the inference image in a container, as its PID 1.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import subject
from benchmarks.load import NAMES, REFUSED, Load, Tally
from benchmarks.serving.processes import free_ports

if TYPE_CHECKING:
    import argparse

    from benchmarks.serving.trial import Running

STOP_S = 25.0
#: The proxy's names for them.
SERVERS = ("one", "two")
#: Without a time-out of its own a check has as long as its interval, 100 ms; under full load an
#: answer may take longer, and the proxy would call both servers down and answer 503 by itself.
PROXY = """\
global
  maxconn 4096
  stats socket {socket} mode 600
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 75s
  timeout check 5s
  retries 5
  option redispatch 1
  retry-on conn-failure 503
  option httpchk GET /ping
  default-server check inter 100ms fall 1 rise 1
frontend clients
  bind 127.0.0.1:{port}
  default_backend servers
backend servers
  balance roundrobin
  server one 127.0.0.1:{ports[0]}
  server two 127.0.0.1:{ports[1]}
"""


async def stop(args: argparse.Namespace) -> dict[str, Any]:
    """SIGTERM under load, many times."""
    chosen = subject.subject(args)
    rounds: list[dict[str, Any]] = []
    for _ in range(args.times):
        running = await asyncio.to_thread(chosen.start)
        load = Load(chosen.target(running.port), args.connections)
        ended = asyncio.Event()
        loading = asyncio.create_task(
            load.closed_loop(args.connections, STOP_S + 30, grace_s=5.0, stop=ended)
        )
        await asyncio.sleep(random.uniform(0.3, 1.0))
        code, seconds = await asyncio.to_thread(_end, running)
        ended.set()
        tally = await loading
        rounds.append(
            {
                "answered": sum(outcome == 200 for outcome in tally.outcome),
                "lost": tally.failed(503, REFUSED),
                "unavailable": sum(outcome == 503 for outcome in tally.outcome),
                "exit_code": code,
                "seconds": round(seconds, 2),
            }
        )
    lost = sum(entry["lost"] for entry in rounds)
    slowest = max(entry["seconds"] for entry in rounds)
    codes = Counter(entry["exit_code"] for entry in rounds)
    return {
        "summary": (
            f"{args.times} stops under load, {sum(e['answered'] for e in rounds)} requests "
            f"answered, {sum(e['unavailable'] for e in rounds)} told 503, {lost} lost; exit codes "
            f"{dict(codes)}; slowest stop {slowest:.1f} s"
        ),
        "passed": lost == 0 and set(codes) == {0} and slowest <= STOP_S,
        "rounds": rounds,
    }


def _end(running: Running) -> tuple[int | None, float]:
    """SIGTERM; exit code and seconds."""
    began = time.monotonic()
    running.processes.root.terminate()
    try:
        code: int | None = running.processes.root.wait(STOP_S + 5)
    except subprocess.TimeoutExpired:
        code = None
    seconds = time.monotonic() - began
    running.processes.stop()
    return code, seconds


async def roll(args: argparse.Namespace) -> dict[str, Any]:
    """Two servers behind a proxy, restarted in turn."""
    if shutil.which("haproxy") is None:
        sys.exit("haproxy is not on PATH; install it: apt-get install haproxy")
    chosen = subject.subject(args)
    port, *ports = free_ports(3)
    servers: list[Running] = []
    proxy: subprocess.Popen[bytes] | None = None
    folder = Path(tempfile.mkdtemp(prefix="byoc-roll-"))
    own = 0
    try:
        for number in ports:
            started = await asyncio.to_thread(chosen.start, number)
            servers.append(started)
        proxy = _proxy(folder, port, ports)
        await asyncio.to_thread(_wait_proxy, port)
        load = Load(chosen.target(port), args.connections)
        ended = asyncio.Event()
        seconds = float("inf")
        loading = asyncio.create_task(
            load.open_loop(args.rate, seconds, grace_s=30.0, stop=ended)
            if args.rate
            else load.closed_loop(args.connections, seconds, grace_s=30.0, stop=ended)
        )
        codes: Counter[int | None] = Counter()
        for number in range(args.times):
            code, _ = await asyncio.to_thread(_end, servers[number % 2])
            codes[code] += 1
            servers[number % 2] = await asyncio.to_thread(chosen.start, ports[number % 2])
            # As every rolling update does: not the next one before this one is in service.
            await asyncio.to_thread(_wait_in_service, folder, SERVERS[number % 2])
        ended.set()
        tally = await loading
        own = _answered_by_proxy(folder)
    finally:
        # First: whatever stopping the servers comes to, nothing is left running.
        if proxy is not None:
            proxy.terminate()
            proxy.wait(10)
        for running in servers:
            running.processes.stop()
        shutil.rmtree(folder)
    return _rolled(args, tally, codes, own)


def _rolled(
    args: argparse.Namespace, tally: Tally, codes: Counter[int | None], own: int
) -> dict[str, Any]:
    failed = tally.failed()
    outcomes = Counter(NAMES.get(outcome, str(outcome)) for outcome in tally.outcome)
    return {
        "summary": (
            f"{args.times} rolling restarts, {len(tally.due)} requests, {failed} failed; outcomes "
            f"{dict(outcomes)}, 503s of the proxy's own: {own}; exit codes {dict(codes)}"
        ),
        "passed": failed == 0 and set(codes) == {0},
        "outcomes": dict(outcomes),
        "proxy_own": own,
    }


def _status(folder: Path) -> dict[str, dict[str, str]]:
    """HAProxy's own view of its servers, by their names; its own is ``BACKEND``."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "socket"))
        connection.sendall(b"show stat\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    return {row["svname"]: row for row in rows if row["pxname"] == "servers"}


def _wait_in_service(folder: Path, name: str) -> None:
    deadline = time.monotonic() + 60
    while not _status(folder)[name]["status"].startswith("UP"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the proxy has not found {name} healthy within 60 s")
        time.sleep(0.05)


def _answered_by_proxy(folder: Path) -> int:
    """Errors that no server sent: the proxy found none that it could ask."""
    status = _status(folder)
    return int(status["BACKEND"]["hrsp_5xx"]) - sum(int(status[n]["hrsp_5xx"]) for n in SERVERS)


def _proxy(folder: Path, port: int, ports: list[int]) -> subprocess.Popen[bytes]:
    config = folder / "haproxy.cfg"
    config.write_text(PROXY.format(port=port, ports=ports, socket=folder / "socket"))
    environ = {"PATH": os.environ.get("PATH", "")}
    return subprocess.Popen(
        ["haproxy", "-db", "-q", "-f", str(config)], env=environ, stdout=subprocess.DEVNULL
    )


def _wait_proxy(port: int) -> None:
    """Until both servers' checks have run and requests go through."""
    import http.client  # noqa: PLC0415 - here alone

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise RuntimeError("the proxy does not pass /ping on")


if __name__ == "__main__":
    arguments = subject.parser(__doc__, 0.0)
    arguments.add_argument("what", choices=("stop", "roll"))
    arguments.add_argument("--times", type=int, default=100)
    arguments.add_argument("--connections", type=int, default=16)
    arguments.add_argument(
        "--rate", type=float, help="roll: requests a second (default: as many as are answered)"
    )
    parsed = arguments.parse_args()
    program = {"stop": stop, "roll": roll}[parsed.what]
    subject.run(program(parsed), parsed, f"restarts-{parsed.what}")
