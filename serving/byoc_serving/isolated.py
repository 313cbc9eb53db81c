"""The isolated topology: HTTP fronts, and one model process a device, under one master.

The fronts are gunicorn's workers. They load no model, so they listen at once, answer 503 until the
model processes are ready, and keep every request until its answer is there (``remote``). The model
processes (``model_process``) are forked by the master, which imports nothing heavy, and replaced by
it (``supervisor``); their listening sockets belong to the master, so that fronts can connect to the
next process before it exists.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from byoc_serving.arena import Arena
from byoc_serving.engine import Engine
from byoc_serving.errors import StartError
from byoc_serving.handler import explain
from byoc_serving.master import Application, Master
from byoc_serving.model_process import ModelProcess, Place, arrays
from byoc_serving.remote import Remote
from byoc_serving.running import Running
from byoc_serving.service import Service
from byoc_serving.supervisor import LOAD_FAILED, Supervisor
from byoc_serving.table import State

if TYPE_CHECKING:
    from pathlib import Path

    from byoc_serving.machine import Machine
    from byoc_serving.settings import Settings

log = logging.getLogger("byoc_serving")

_MOST_FRONTS = 16
_BACKLOG = 128
#: Longer paths do not fit into the address of a Unix socket.
_PATH_BYTES = 100


def front_count(settings: Settings, machine: Machine) -> int:
    """HTTP processes: what the models leave of the cores."""
    if settings.front_processes is not None:
        return settings.front_processes
    spare = machine.cores - 1 if machine.gpus else machine.cores // 2
    return max(1, min(_MOST_FRONTS, spare))


def model_count(settings: Settings, machine: Machine) -> int:
    """Model processes: one a GPU; on a CPU one, or as many as were asked for."""
    return len(machine.gpus) or settings.workers or 1


class IsolatedApplication(Application):
    """The server of this topology as gunicorn sees it.

    Args:
        settings: ours.
        machine: what it runs on.
        workspace: a writable directory of this server's own.
    """

    def __init__(self, settings: Settings, machine: Machine, workspace: Path) -> None:
        fronts = front_count(settings, machine)
        self.models = model_count(settings, machine)
        super().__init__(settings, machine, fronts, workspace, rows=self.models)
        self.table.survives_crashes = True
        shared = settings.shared_bytes or settings.queue_bytes
        self.arena = Arena(fronts, self.models, shared, shared // 2)
        self.running = Running(self.models)
        self.listeners = [_listener(workspace, number) for number in range(self.models)]

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            SystemExit: with the exit code.
        """
        IsolatedMaster(self).run()

    def make_service(self, worker: Any) -> Service:
        """A front's service: it has no row in the table."""
        table = self.table
        backend = Remote(
            self.settings,
            worker.slot,
            self.arena,
            self.running,
            [listener.getsockname() for listener in self.listeners],
            lambda: table.latched and table.failure is None,
            lambda: table.failure,
        )
        observer = self.observer(self.models + worker.slot)
        if observer is not None:
            observer.begin_traces()
        service = Service(self.settings, table, None, backend, *self.make_stores(), observer)
        service.workspace = self.workspace
        return service

    def serve_model(self, number: int, incarnation: int) -> None:
        """The life of a model process, after the fork.

        Raises:
            StartError: the model cannot be loaded; one line that says why.
        """
        gpus = self.machine.gpus
        observer = self.observer(number)
        if observer is not None:
            # The fronts have the requests' traces.
            observer.traces = False
        engine = Engine(
            self.settings,
            self.workspace,
            gpus[number] if gpus else None,
            lambda text: self.table.phase(number, text),
            encode=arrays,
            observer=observer,
        )
        place = Place(number, incarnation, self.listeners[number], self.arena, self.running)
        master = os.getppid()

        def over() -> bool:
            return self.table.stopping or os.getppid() != master

        engine.load()

        def ready() -> None:
            self.table.enter(number, State.READY, os.getpid())
            if self.table.latch():
                self.announce(engine.handler.origin, engine.device)
            else:
                log.info("model process %d is ready", os.getpid())

        ModelProcess(place, engine, over).serve(ready)
        # Tells an end in good order from a crash.
        self.table.enter(number, State.DRAINING, os.getpid())


class IsolatedMaster(Master):
    """The arbiter of the fronts, with a supervisor of the model processes."""

    def __init__(self, app: IsolatedApplication) -> None:
        super().__init__(app)
        self._models = Supervisor(
            app.table, app.running, app.models, app.settings.forward_timeout_s, self._spawn_model
        )

    def guard(self) -> None:
        """No porter: the fronts listen while the models load, which share one import of torch."""
        self.spawn_workers()
        self.preload()
        self._models.check()

    def _spawn_model(self, number: int, incarnation: int) -> int:
        if incarnation:
            self.app.ledger.restarted()
        pid = os.fork()
        if not pid:
            self._be_model(number, incarnation)
        return pid

    def _be_model(self, number: int, incarnation: int) -> NoReturn:
        code = 1
        try:
            self._in_model_process()
            self.app.serve_model(number, incarnation)
            code = 0
        except StartError as error:
            code = self._cannot_load(number, str(error))
        except BaseException as error:
            log.debug("the model process failed", exc_info=True)
            code = self._cannot_load(number, f"the model process failed: {explain(error, None)}")
        _end(code)

    def _in_model_process(self) -> None:
        """Leave behind what belongs to the master."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            # It ends when its fronts have; a handler, unlike SIG_IGN, ends with an exec.
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):
            signal.signal(number, signal.SIG_DFL)
        for listener in self.LISTENERS:
            listener.sock.close()
        for worker in self.WORKERS.values():
            worker.tmp.close()

    def _cannot_load(self, number: int, cause: str) -> int:
        table = self.table
        if not table.latched:
            table.fail(cause)
        table.phase(number, cause)
        return LOAD_FAILED

    def take_slot(self) -> int:
        """The first seat without a front."""
        taken = set(self._slots.values())
        return next(number for number in range(self.app.workers) if number not in taken)

    def worker_gone(self, pid: int, slot: int) -> None:
        """Its connections are lost; its seat in the arena is the next front's."""
        if not self.table.stopping:
            log.error("front %d of seat %d crashed; a new one starts", pid, slot)
            self.app.ledger.restarted()
        self.app.ledger.leave(self.app.models + slot)

    def reap_workers(self) -> None:
        """Model processes first: gunicorn reaps whatever it finds and keeps no record."""
        self._models.check()
        super().reap_workers()

    def manage_workers(self) -> None:
        """Keep the fronts, and look after the model processes also when no signal tells of them."""
        self._models.check()
        super().manage_workers()

    def kill_hung(self) -> None:
        """Nothing: the supervisor watches the model processes, fronts do not wait for models."""

    def wait_for_signals(self, timeout: float = 1.0) -> list[Any]:
        """Wait no longer than until a replacement is due."""
        signals: list[Any] = super().wait_for_signals(timeout=min(timeout, self._models.due_in_s()))
        return signals

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Stop the fronts, which answer what runs; then the model processes."""
        try:
            super().stop(graceful)
        finally:
            self._models.stop()


def _listener(workspace: Path, number: int) -> socket.socket:
    """A model process's listening socket."""
    path = str(workspace / f"model-{number}.sock")
    if len(path.encode()) > _PATH_BYTES:
        # An abstract name: Linux's own, bound to no file.
        path = f"\0byoc-{os.getpid()}-{os.urandom(8).hex()}-{number}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(_BACKLOG)
    return listener


def _end(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # Closed by the handler, perhaps: going on here would be going on as the master.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
