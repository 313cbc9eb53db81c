"""The master process: gunicorn's arbiter, with a porter beside its workers."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from byoc_serving.acceptor import Doors
from byoc_serving.access import AccessLog
from byoc_serving.emf import Emitter
from byoc_serving.engine import Engine
from byoc_serving.exchange import one_line
from byoc_serving.exposition import forget_handlers_gauges, share_handlers_metrics
from byoc_serving.gunicorn_conf import options
from byoc_serving.inline import Inline
from byoc_serving.meter import Ledger
from byoc_serving.multimodel.fleet import Fleet
from byoc_serving.observer import Observer
from byoc_serving.patience import harden
from byoc_serving.porter import Porter
from byoc_serving.preload import preload
from byoc_serving.service import Service
from byoc_serving.sessions import Sessions
from byoc_serving.spool import Spooling
from byoc_serving.table import State, Table
from byoc_serving.workers import LOAD_FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from byoc_serving.machine import Machine
    from byoc_serving.settings import Settings

log = logging.getLogger("byoc_serving")

#: Workers that may die while loading before the server gives up: once may be chance.
LOAD_DEATHS = 2
#: Between two attempts to replace a worker while the others serve.
_LONGEST_PAUSE_S = 30.0
#: Beyond the time of a forward pass, before the master kills a worker that shows no life.
HUNG_GRACE_S = 10.0


class Application(BaseApplication):  # type: ignore[misc] # gunicorn is untyped
    """The server as gunicorn sees it.

    Args:
        settings: ours.
        machine: what it runs on.
        workers: processes with a model.
        workspace: a writable directory of this server's own.
        rows: processes that have a row in the table; None: the workers.
    """

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        workers: int,
        workspace: Path,
        rows: int | None = None,
    ) -> None:
        self.settings = settings
        self.machine = machine
        self.workers = workers
        self.workspace = workspace
        self.table = Table(rows or workers)
        self.doors = Doors(workers)
        # The table's rows first; fronts that have none in it come after them.
        self.ledger = Ledger(workers + (rows or 0))
        if settings.metrics:
            share_handlers_metrics(workspace)
        self.emitter = self._emitter() if settings.emf else None
        super().__init__()

    def _emitter(self) -> Emitter:
        settings = self.settings
        return Emitter(
            self.ledger,
            self.table,
            settings.emf_namespace,
            dict(settings.emf_dimensions),
            settings.emf_interval_s,
            sys.stdout,
        )

    def load_config(self) -> None:
        """Gunicorn's settings come from ours alone, never from its own files or variables."""
        for name, value in options(self.settings, self.workers, self.workspace).items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """Workers make their application themselves."""

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            SystemExit: with the exit code.
        """
        Master(self).run()

    def make_service(self, worker: Any) -> Service:
        """A worker's service, in the worker's process."""
        slot: int = worker.slot
        if self.settings.multi_model:
            return self._make_models_service(slot)
        gpus = self.machine.gpus
        gpu = gpus[slot % len(gpus)] if gpus else None
        observer = self.observer(slot)
        engine = Engine(
            self.settings,
            self.workspace,
            gpu,
            lambda text: self.table.phase(slot, text),
            observer=observer,
        )
        backend = Inline(engine, self.settings.forward_timeout_s)
        service = Service(self.settings, self.table, slot, backend, *self.make_stores(), observer)
        service.workspace = self.workspace
        return service

    def _make_models_service(self, slot: int) -> Service:
        observer, settings = self.observer(slot), self.settings
        if observer is not None:
            observer.begin_traces()
        stopping = lambda: self.table.stopping  # noqa: E731 - one line, one use
        fleet = Fleet(settings, self.machine, self.workspace, stopping, observer)
        service = Service(settings, self.table, slot, fleet, *self.make_stores(), observer)
        service.more_metrics = fleet.metrics
        return service

    def make_stores(self) -> tuple[Sessions, Spooling]:
        """The sessions that all workers share, and where long bodies go."""
        settings = self.settings
        directory = self.workspace / "sessions"
        sessions = Sessions(directory, settings.session_ttl_s, settings.max_sessions)
        return sessions, Spooling(self.workspace, settings.spool_bytes)

    def observer(self, row: int) -> Observer | None:
        """What the process of a row of the ledger tells its work to; None: nobody wants it."""
        settings = self.settings
        if not (settings.metrics or settings.emf or settings.otel or settings.access_log != "off"):
            return None
        observer = Observer(self.ledger, row)
        observer.traces = settings.otel
        if settings.access_log != "off":
            observer.access = AccessLog(pings=settings.access_log == "all")
        return observer

    def announce(self, origin: str, device: str) -> None:
        """The line that says that the server is ready, and with what."""
        log.info(
            "ready after %.1f s: model %s, handler %s, %d worker%s, port %d, device %s, front %s",
            time.monotonic() - self.table.started,
            self.settings.models_dir if self.settings.multi_model else self.settings.model_dir,
            origin,
            self.workers,
            "" if self.workers == 1 else "s",
            self.settings.port,
            device,
            self.settings.front,
        )


class Master(Arbiter):  # type: ignore[misc] # gunicorn is untyped
    """The arbiter: keeps workers and porter alive, knows when loading is hopeless."""

    worker_class: type[Any]

    def __init__(self, app: Application) -> None:
        self._porter_pid = 0
        self._load_deaths = 0
        self._respawn_at = 0.0
        self._slots: dict[int, int] = {}
        super().__init__(app)

    @property
    def table(self) -> Table:
        """The table that all processes share."""
        table: Table = self.app.table
        return table

    def start(self) -> None:
        """Listen, then put somebody at the door before anything starts to load."""
        super().start()
        for listener in self.LISTENERS:
            harden(listener.sock)
        self.guard()

    def guard(self) -> None:
        """The porter answers until a worker can."""
        self._spawn_porter()
        if not self.app.settings.multi_model:
            # The front of many models needs none; their zygote is a process of its own.
            self.preload()

    def preload(self) -> None:
        """Import torch for all workers, while the porter tells what is going on."""
        self.table.enter(0, State.LOADING, 0)
        self.table.phase(0, "importing torch")
        preload(self.app.settings, self.app.machine)
        self.table.enter(0, State.EMPTY, 0)

    def _spawn_porter(self) -> None:
        porter = Porter(0, self.pid, self.LISTENERS, self.app, 0, self.cfg, self.log)
        pid = os.fork()
        if pid:
            self._porter_pid = pid
            porter.tmp.close()
            return
        porter.pid = os.getpid()
        status = 1
        try:
            porter.init_process()
            status = 0
        except Exception:
            log.exception("the porter failed")
        finally:
            sys.stderr.flush()
            os._exit(status)

    def spawn_worker(self) -> Any:
        """Start a worker in a free slot."""
        slot = self.take_slot()
        base = self.worker_class

        class InSlot(base):  # type: ignore[misc, valid-type] # chosen by configuration
            """The worker of this slot."""

        InSlot.slot = slot
        self.worker_class = InSlot
        try:
            pid = super().spawn_worker()
        finally:
            self.worker_class = base
        self._slots[pid] = slot
        return pid

    def take_slot(self) -> int:
        """A free row of the table, for a worker that will load."""
        slot = self.table.free_slot()
        self.table.enter(slot, State.LOADING, 0)
        self.table.phase(slot, "starting")
        return slot

    def reap_workers(self) -> None:
        """Free the slots of workers that are gone; note those that died while loading."""
        before = set(self.WORKERS)
        try:
            self._reap_all()
        finally:
            for pid in before - set(self.WORKERS):
                slot = self._slots.pop(pid, None)
                if slot is not None:
                    self.worker_gone(pid, slot)

    def _reap_all(self) -> None:
        try:
            super().reap_workers()
        except HaltServer:
            # While stopping, a second worker that cannot load changes nothing any more.
            if not self.table.stopping:
                raise
            self._reap_all()

    def worker_gone(self, pid: int, slot: int) -> None:
        """A worker's process has ended: its row is free, and its end may mean something."""
        row = self.table.slot(slot)
        if row.state is State.LOADING and not self.table.stopping:
            self._load_deaths += 1
            if self.table.latched and self.table.ready_count:
                # The others serve; what is missing may come back, a volume for example.
                pause = min(_LONGEST_PAUSE_S, 2.0 ** min(self._load_deaths, 10) / 4)
                self._respawn_at = time.monotonic() + pause
            elif self._load_deaths >= LOAD_DEATHS:
                self.table.fail(
                    f"{self._load_deaths} workers in a row died while loading (last: process "
                    f"{pid}, {row.phase}); most often the memory is too small for the model: "
                    "use a larger instance, fewer workers (SAGEMAKER_MODEL_SERVER_WORKERS), or "
                    "a smaller model"
                )
        elif row.state is State.READY:
            self._load_deaths = 0
            log.error("worker %d crashed; its requests are lost, a new one starts", pid)
        self.table.enter(slot, State.EMPTY, 0)
        self.app.ledger.leave(slot)
        forget_handlers_gauges(pid)
        # Last: whoever sees the count sees the row and the gauges as they are.
        if not self.table.stopping:
            self.app.ledger.restarted()

    def manage_workers(self) -> None:
        """Keep the number of workers, and the porter; stop when loading is hopeless."""
        if self.table.failure is not None:
            raise HaltServer("a worker cannot load", LOAD_FAILED)
        if self._porter_pid and not _alive(self._porter_pid):
            log.error("the porter is gone; a new one starts")
            self._spawn_porter()
        self.kill_hung()
        if self.app.emitter is not None:
            self.app.emitter.tick()
        if time.monotonic() >= self._respawn_at:
            super().manage_workers()

    def kill_hung(self) -> None:
        """End workers whose loop has stopped: one that only waits for its model ends itself."""
        limit_s = self.app.settings.forward_timeout_s + HUNG_GRACE_S
        for pid, slot in self._slots.items():
            row = self.table.slot(slot)
            silent_s = time.monotonic() - row.heartbeat
            if row.state is State.READY and silent_s > limit_s:
                log.error("worker %d has not moved for %.1f s; it is killed", pid, silent_s)
                self.kill_worker(pid, signal.SIGKILL)

    def kill_workers(self, sig: int) -> None:
        """Signal the workers and the porter."""
        super().kill_workers(sig)
        if self._porter_pid:
            try:
                os.kill(self._porter_pid, sig)
            except ProcessLookupError:
                self._porter_pid = 0

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Stop: nothing new is accepted, what runs is answered."""
        self.table.stop()
        super().stop(graceful)
        if self.app.emitter is not None:
            self.app.emitter.flush()

    def handle_int(self) -> None:
        """SIGINT means the same as SIGTERM."""
        self.handle_term()

    def _not_supported(self) -> None:
        log.warning("signal ignored: a container is replaced, not reconfigured")

    handle_hup = handle_usr2 = handle_ttin = handle_ttou = handle_winch = _not_supported


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def failure_line(table: Table) -> str | None:
    """The cause of a failed start as one line."""
    return one_line(table.failure, 3000) if table.failure else None


def reset_signals() -> None:
    """Ignore the signals that would interrupt the last words."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
