"""gunicorn's workers with what a model server adds: listen when loaded, refuse at once, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gasgi import ASGIWorker

from byoc_serving.acceptor import Acceptor, hang_up
from byoc_serving.asgi import AsgiFront
from byoc_serving.bridge import Bridge
from byoc_serving.collector import Collector
from byoc_serving.connection import Protocol
from byoc_serving.gate import Gate
from byoc_serving.gunicorn_conf import KEEPALIVE_S
from byoc_serving.patience import Patience
from byoc_serving.sweeper import Sweeper
from byoc_serving.table import State
from byoc_serving.threaded import PatientThreadWorker, announce_close
from byoc_serving.watched import Watched

if TYPE_CHECKING:
    from byoc_serving.service import Service

log = logging.getLogger("byoc_serving")

#: A stopping worker gives clients this long to send what is on its way on idle connections.
LINGER_S = 0.3
#: How often a worker looks whether the master lives, or stops.
TICK_S = 0.25
LOAD_FAILED = 3
#: Requests that keep a model busy: two of its largest batches; more where it is a GPU's process.
ENOUGH = 128
ENOUGH_REMOTE = 512


class LoopWorker(ASGIWorker):  # type: ignore[misc] # gunicorn is untyped
    """gunicorn's ASGI worker with a drain of our own and no delay in it."""

    protocol_class: type[Protocol] = Protocol

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Protocol] = set()
        self.acceptor: Acceptor
        self._stop: asyncio.Event | None = None
        self.gate: Gate | None = None
        #: Each answer from now on is its connection's last.
        self.leaving = False

    alive: bool

    @property
    def table(self) -> Any:
        """The table that all processes share."""
        return self.app.table

    def init_signals(self) -> None:
        """SIGINT reaches the whole terminal's group; it means the same as SIGTERM here."""
        super().init_signals()
        self.acceptor = Acceptor(
            self.loop,
            [listener.sock for listener in self.sockets],
            lambda: self.protocol_class(self),
            self.app.doors,
            self.age,
            lambda: len(self.connections),
        )
        self.loop.add_signal_handler(signal.SIGINT, self.handle_exit_signal)

    def handle_exit_signal(self) -> None:
        """SIGTERM: begin to drain now, not at the next tick.

        ``alive`` stays true until then: gunicorn would close connections whose last answer has
        promised the client that it may ask again.
        """
        self.leaving = True
        if self._stop is not None:
            self._stop.set()

    def handle_quit_signal(self) -> None:
        """SIGQUIT: end at once."""
        self._quick_shutdown = True
        self.handle_exit_signal()

    async def _tick(self) -> None:
        """Heartbeat; the ways to end without a signal; clients that take too long."""
        sweeper = Sweeper(Patience.of(self.app.settings, KEEPALIVE_S))
        swept = self.loop.time()
        collector = Collector(swept)
        while not self.leaving:
            self.notify()
            self.beat()
            now = self.loop.time()
            if now >= swept + sweeper.interval_s:
                swept = now
                await sweeper.sweep(self.connections, now)
            collector.beat(now, lambda: all(connection.idle for connection in self.connections))
            if self.ppid != os.getppid() or self.table.stopping:
                self.handle_exit_signal()
            await asyncio.sleep(TICK_S)

    def beat(self) -> None:
        """Tell the others that the loop runs."""

    def listen(self) -> None:
        """Accept connections from now on."""
        self.acceptor.start()

    def unlisten(self) -> None:
        """Accept no more connections; those that are open stay."""
        self.acceptor.stop()

    async def drain(self) -> None:
        """Refuse new connections, answer what runs, close the rest."""
        listened = self.acceptor.listening
        self.unlisten()
        if listened:
            await self.acceptor.finish(for_all=self.table.stopping)
        for listener in self.sockets:
            listener.close()
        if self._quick_shutdown:
            return
        began = self.loop.time()
        while self.connections and self.loop.time() < began + self.cfg.graceful_timeout:
            if self._quick_shutdown:
                return
            if self.loop.time() - began >= LINGER_S:
                for connection in [c for c in self.connections if c.idle]:
                    connection.close_idle()
            await asyncio.sleep(0.02)
        if self.connections:
            log.warning("%d connections were still busy and are cut off", len(self.connections))


class AsgiWorker(LoopWorker):
    """A worker of the ASGI front."""

    def load_wsgi(self) -> None:
        """Make the application; the model comes later."""
        self.service: Service = self.app.make_service(self)
        self.bridge = Bridge(self._flask)
        self.front = AsgiFront(self.service, self.bridge)
        self.asgi = self.front

    def _flask(self) -> Any:
        from byoc_serving.app import create_app  # noqa: PLC0415 - takes longer than a start may

        return create_app(self.service)

    def beat(self) -> None:
        """Tell the others that the loop runs; leave when the model cannot be asked any more."""
        if not self.service.beat():
            self.handle_exit_signal()

    async def _serve(self) -> None:
        self._stop = stop = asyncio.Event()
        settled = asyncio.Event()
        ticking = asyncio.create_task(self._tick())
        self.front.start(settled.set)
        waits = [asyncio.create_task(event.wait()) for event in (stop, settled)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.service.failure is not None:
            give_up(self.service)
        if not stop.is_set():
            most = ENOUGH_REMOTE if self.service.slot is None else ENOUGH
            self.gate = Gate(self.service, most, self.loop)
            self.listen()
            now_ready(self.app, self.service)
            warming = asyncio.create_task(self.bridge.warm())
            await stop.wait()
            warming.cancel()
        self.service.enter(State.DRAINING, self.pid)
        ticking.cancel()
        self.front.stop()
        await self.drain()

    def run(self) -> None:
        """Serve, then end the model thread before the interpreter ends."""
        super().run()
        end(self.service, self._quick_shutdown)


class WsgiWorker(PatientThreadWorker):
    """A worker of the WSGI front: Flask in threads, which only wait for the model thread."""

    service: Service
    alive: bool

    def load_wsgi(self) -> None:
        """Make the application; the model comes later."""
        self.service = self.app.make_service(self)
        wsgi = self._flask().wsgi_app
        if self.service.observer is not None:
            wsgi = Watched(wsgi, self.service.observer)
        # Outermost: it needs gunicorn's own start_response.
        self.wsgi = announce_close(wsgi)
        self._stopped = False

    def _flask(self) -> Any:
        from byoc_serving.app import create_app  # noqa: PLC0415 - the ASGI front delays it

        return create_app(self.service)

    def init_signals(self) -> None:
        """SIGINT reaches the whole terminal's group; it means the same as SIGTERM here."""
        super().init_signals()
        signal.signal(signal.SIGINT, self.handle_exit)

    def run(self) -> None:
        """Load, serve, drain."""
        service = self.service
        service.start()
        while self.alive and not service.settled.wait(0.05):
            self.notify()
            if self.ppid != os.getppid() or self.app.table.stopping:
                self.alive = False
        if service.failure is not None:
            give_up(service)
        if self.alive:
            now_ready(self.app, service)
            super().run()
        service.enter(State.DRAINING, self.pid)
        end(service, quick=False)

    def is_parent_alive(self) -> bool:
        """Whether to go on: the master lives and has not begun to stop."""
        if not self.service.beat():
            self.alive = False
        if not super().is_parent_alive() or self.app.table.stopping:
            # Noticed before the signal: the listening sockets must be closed all the same.
            self.alive = False
        return self.alive

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's signature
        """Close the listening sockets as soon as the drain begins, so that clients are refused."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                # What the kernel has accepted already would be reset by the close.
                accepted = -1
                while accepted != self.nr_conns:
                    accepted = self.nr_conns
                    self.accept(listener)
                if self.app.table.stopping:
                    hang_up(listener.sock)
                listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(min(deadline, time.monotonic() + LINGER_S))


def now_ready(app: Any, service: Service) -> None:
    """Tell the others that this worker takes requests; the last one says that all do."""
    if service.slot is None:
        # A front: the model processes have the rows.
        return
    service.enter(State.READY, os.getpid())
    if service.table.latch():
        app.announce(service.backend.origin, service.backend.device)


def give_up(service: Service) -> None:
    """End the whole server, which ends with the cause as its last line.

    A replacement that cannot load ends only itself, as long as the other workers serve.

    Raises:
        SystemExit: always.
    """
    cause = service.failure or "loading failed"
    if service.table.latched and service.table.ready_count:
        log.error("worker %d cannot load, the others go on: %s", os.getpid(), cause)
        sys.exit(1)
    service.table.fail(cause)
    log.debug("worker %d cannot load", os.getpid())
    sys.exit(LOAD_FAILED)


def end(service: Service, quick: bool) -> None:  # noqa: FBT001 - one flag, two callers
    """End the model thread; when it does not end, end the process around it."""
    if service.observer is not None and not quick:
        service.observer.close()
    if not service.settled.is_set() or not service.close(0.0 if quick else 1.0):
        # Finalising the interpreter under a thread that is inside torch would crash.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
