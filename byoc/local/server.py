"""The local endpoint as a server: one process, one port of the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from typing import TYPE_CHECKING

from byoc.errors import LocalError
from byoc.local.actions import Context
from byoc.local.application import Application
from byoc.local.catalog import resources
from byoc.local.objects import Objects
from byoc.local.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.local.home import Home

#: An invocation holds a thread for as long as its model takes.
THREADS = 256
#: Clients that come at once, before the first of them is looked at; cheroot's 5 drop the others.
CONNECTIONS_WAITING = 1024
#: A reader of a Pipe channel may pause while a model learns; after that its connection is cut.
PAUSE_SECONDS = 600
END_SECONDS = 5.0
HOST = "127.0.0.1"


class Server:
    """The endpoint, from its state folder to its port.

    Raises:
        LocalError: The folder or the port is taken.
    """

    def __init__(self, home: Home, port: int, region: str, runner: str) -> None:
        from cheroot import wsgi  # noqa: PLC0415 - of the extra control

        home.prepare()
        self._home, self._region = home, region
        self._claim = home.claim()
        self._log_lock = threading.Lock()
        self._store = _store(home, self._claim)
        self._http = wsgi.Server(
            (HOST, port),
            None,
            numthreads=THREADS,
            server_name="byoc-local",
            request_queue_size=CONNECTIONS_WAITING,
            timeout=PAUSE_SECONDS,
        )
        self._http.error_log = self._log_http  # type: ignore[method-assign]
        self._http.shutdown_timeout = 1
        try:
            self._http.prepare()
        except OSError as error:
            self._store.close()
            os.close(self._claim)
            raise LocalError(
                f"port {port} of {HOST} cannot be used ({error}); choose another: --port 0"
            ) from error
        self.url = f"http://{HOST}:{self._http.bind_addr[1]}"
        self._objects = Objects(home.objects, region)
        context = Context(home, self._store, region, self.url)
        self._resources, runtime = resources(context, self._objects, runner, self.log)
        actions = {name: action for one in self._resources for name, action in one.actions.items()}
        self._application = Application(actions, runtime, self._objects, self.log)
        self._http.wsgi_app = self._application

    def serve(self, ready: Callable[[], None]) -> None:
        """Answer until SIGTERM or SIGINT; then end what runs, and the process."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        for work in (self._objects.load, self._recover, self._http.serve):
            threading.Thread(target=work, daemon=True).start()
        address = {"pid": os.getpid(), "url": self.url, "region": self._region}
        self._home.address.write_text(json.dumps(address))
        ready()
        stop.wait()
        # Jobs that end store what they have saved, and tell their last lines, through this port.
        self._application.closing = True
        for resource in self._resources:
            resource.close()
        # An invocation that is still being answered does not hold up the end.
        ending = threading.Thread(target=self._http.stop, daemon=True)
        ending.start()
        ending.join(END_SECONDS)
        self._store.close()
        self._home.address.unlink(missing_ok=True)
        sys.stdout.flush()
        os._exit(0)

    def log(self, line: str) -> None:
        """Add to the server's own log."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._log_lock, self._home.server_log.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line}\n")

    def _recover(self) -> None:
        for resource in self._resources:
            try:
                resource.recover()
            except Exception as error:  # noqa: BLE001,PERF203 - the others are still taken care of
                self.log(f"recovery: {error!r}")

    def _log_http(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:  # noqa: ARG002,FBT001,FBT002 - cheroot's form
        self.log(msg)


def _store(home: Home, claim: int) -> Store:
    """The folder's database.

    Raises:
        LocalError: It is none, or cannot be opened.
    """
    try:
        return Store(home.database)
    except (sqlite3.Error, ValueError, OSError) as error:
        os.close(claim)
        raise LocalError(
            f"{home.database} cannot be read ({error}); move it away, and an empty one is made"
        ) from error
