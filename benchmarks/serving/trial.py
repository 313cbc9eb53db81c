"""One server, one round: start it, check its answers, load it, weigh it, stop it."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import shutil
import string
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.serving import catalog, model, wrk
from benchmarks.serving.processes import Processes, busy_s, free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.serving.catalog import Peer

PEERS = Path(__file__).parent / "peers"
WARM_UP_S = 2.0
#: Inherited by a server: no thread counts, no settings of this project from the caller's shell.
_NOT_INHERITED = ("BYOC_", "SAGEMAKER_", "OMP_", "MKL_", "GUNICORN_", "PYTHON", "BENCH_")


class TrialError(Exception):
    """A server did not start, or answers wrongly."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        cache: where environments and work folders are.
        seconds: of each load.
        workers: processes of each server.
        connections: the numbers of connections to measure with.
        kinds: the body types.
        start_s: time that a server has for its first right answer.
    """

    cache: Path
    seconds: float
    workers: int
    connections: Sequence[int] = (32, 1)
    kinds: Sequence[str] = catalog.KINDS
    start_s: float = 180.0


@dataclass
class Figures:
    """What one round of one server gave; loads by ``json-32`` and the like."""

    start_s: float = 0.0
    loads: dict[str, dict[str, float]] = field(default_factory=dict)
    pss_mib: float = 0.0
    processes: int = 0


class Running:
    """A started peer.

    Args:
        peer: which.
        binaries: its environment's ``bin``.
        sample: the model.
        plan: the run.
        port: where it listens; None: on a free one.
    """

    def __init__(
        self,
        peer: Peer,
        binaries: Path,
        sample: model.Sample,
        plan: Plan,
        port: int | None = None,
    ) -> None:
        self.peer = peer
        self.sample = sample
        free, *others = free_ports(3)
        self.port = port or free
        folder = peer.name if port is None else f"{peer.name}-{port}"
        self._workers = plan.workers
        self.work = (plan.cache / "run" / folder).resolve()
        names = {
            "bin": str(binaries.absolute()),
            "work": str(self.work),
            "workers": str(plan.workers),
            "port": str(self.port),
            "port_2": str(others[0]),
            "port_3": str(others[1]),
        }
        self._last_wrong = "no answer"
        self._lay_out(names)
        command = [string.Template(word).substitute(names) for word in peer.command]
        self.processes = Processes(
            command, self._environ(names, binaries), self.work, self.work / "server.log"
        )

    def _lay_out(self, names: dict[str, str]) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        source = PEERS / (self.peer.folder or self.peer.name)
        for folder in (source, PEERS / "shared") if not self.peer.ours else ():
            for path in folder.rglob("*"):
                target = self.work / path.relative_to(folder)
                if not path.is_file() or "__pycache__" in path.parts:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                text = path.read_text()
                if path.suffix != ".py":
                    text = string.Template(text).safe_substitute(names)
                target.write_text(text)
        if self.peer.ours:
            model.install(self.sample, self.work / "ml")
        else:
            shutil.copyfile(model.NET, self.work / "model.py")

    def _environ(self, names: dict[str, str], binaries: Path) -> dict[str, str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
        environ.update(
            PATH=f"{binaries.absolute()}:{os.environ.get('PATH', '')}",
            BENCH_MODEL=str(self.sample.folder.resolve()),
            BENCH_PORT=names["port"],
            BENCH_WORKERS=names["workers"],
        )
        if self.peer.ours:
            # Our own defaults are what is measured, unless the run asks for other workers.
            environ["SAGEMAKER_BIND_TO_PORT"] = names["port"]
            environ["PYTHONPATH"] = f"{model.ROOT}:{model.ROOT / 'serving'}"
            if self._workers != len(os.sched_getaffinity(0)):
                environ["SAGEMAKER_MODEL_SERVER_WORKERS"] = names["workers"]
        else:
            environ["OMP_NUM_THREADS"] = environ["MKL_NUM_THREADS"] = "1"
            environ["PYTHONPATH"] = str(self.work)
        for name, value in self.peer.environ.items():
            environ[name] = string.Template(value).substitute(names)
        return environ

    def ask(self, kind: str, number: int, timeout: float = 30.0) -> bool:
        """Whether one request gets the right answer.

        Raises:
            OSError: nobody answers.
            http.client.HTTPException: nor is it HTTP.
        """
        body, headers = self.sample.body(self.peer, kind, number)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("POST", self.peer.route, body, headers)
            response = connection.getresponse()
            answer = response.read()
        right = response.status == 200 and (
            self.peer.calibration or self.sample.right(self.peer, answer, number)
        )
        if not right:
            self._last_wrong = f"{response.status} {answer[:200]!r}"
        return right

    def wait_first_answer(self, within_s: float) -> float:
        """Seconds from the start of the process to the first right answer.

        Raises:
            TrialError: the server ended, or does not answer in time.
        """
        deadline = self.processes.started + within_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask(catalog.JSON, 0):
                    return time.monotonic() - self.processes.started
            if self.processes.code is not None:
                raise TrialError(f"ended with {self.processes.code}: {self.processes.tail()}")
            time.sleep(0.02)
        seen = f"last answer: {self._last_wrong}; log: {self.processes.tail()}"
        raise TrialError(f"no right answer in {within_s:g} s; {seen}")

    def check(self, kind: str) -> None:
        """Compare answers to all images, many at once, so that batches form.

        Raises:
            TrialError: one is wrong.
        """

        def right(number: int) -> bool:
            try:
                return self.ask(kind, number)
            except (OSError, http.client.HTTPException):
                return False

        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(right, range(2 * model.IMAGES)))
        if not all(results):
            wrong = results.count(False)
            raise TrialError(
                f"{wrong} of {len(results)} {kind} answers are wrong or missing; "
                f"last: {self._last_wrong}"
            )

    def load(self, kind: str, connections: int, seconds: float) -> wrk.Load:
        """Load of one kind."""
        requests = [self.sample.body(self.peer, kind, number) for number in range(model.IMAGES)]
        folder = self.work / "wrk" / kind
        url = f"http://127.0.0.1:{self.port}"
        return wrk.run(url, self.peer.route, requests, folder, connections, seconds)


def measure(peer: Peer, binaries: Path, sample: model.Sample, plan: Plan) -> Figures:
    """One round of one server.

    Raises:
        TrialError: it does not start, or answers wrongly.
    """
    figures = Figures()
    running = Running(peer, binaries, sample, plan)
    try:
        figures.start_s = running.wait_first_answer(plan.start_s)
        kinds = [kind for kind in peer.kinds if kind in plan.kinds]
        for kind in kinds:
            running.check(kind)
        for connections in plan.connections:
            for kind in kinds:
                # Every connection's first requests are warm-up, not measurement.
                running.load(kind, connections, min(WARM_UP_S, plan.seconds))
                figures.loads[f"{kind}-{connections}"] = _timed(running, kind, connections, plan)
        figures.pss_mib = running.processes.pss_mib()
        figures.processes = len(running.processes.pids())
        for kind in kinds:
            running.check(kind)
    finally:
        running.processes.stop()
    return figures


def _timed(running: Running, kind: str, connections: int, plan: Plan) -> dict[str, Any]:
    cores, cpu, began = busy_s(), running.processes.cpu_s(), time.monotonic()
    client = _children_s()
    load = running.load(kind, connections, plan.seconds)
    wall = time.monotonic() - began
    busy = [(after - before) / wall for before, after in zip(cores, busy_s(), strict=True)]
    server = (running.processes.cpu_s() - cpu) / wall
    return {
        **asdict(load),
        "server_cores": server,
        "least_busy_core": min(busy),
        # Whatever else ran on the machine: with much of it, no figure means anything.
        "other_cores": max(0.0, sum(busy) - server - (_children_s() - client) / wall),
    }


def _children_s() -> float:
    """CPU seconds of the programs that this one has waited for: wrk."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
