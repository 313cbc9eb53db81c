"""gunicorn's workers as we changed them, where no real process can be made to hit the moment."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from byoc_serving.table import Table
from byoc_serving.workers import WsgiWorker


@pytest.mark.contract(69)
def test_wsgi_worker_that_sees_the_stop_before_its_signal_closes_its_listening_sockets():
    table = Table(1)
    worker: Any = WsgiWorker.__new__(WsgiWorker)
    worker.alive = True
    worker.ppid = os.getppid()
    worker.app = SimpleNamespace(table=table)
    worker.service = SimpleNamespace(beat=lambda: True)
    assert worker.is_parent_alive()
    table.stop()
    assert not worker.is_parent_alive()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = []
        worker._accepting = False
        worker.nr_conns = 0
        worker.accept = lambda _: None
        worker.sockets = [SimpleNamespace(sock=listener, close=lambda: closed.append("closed"))]
        worker.set_accept_enabled(False)
        assert closed == ["closed"]
        # Whoever else has the socket open must not make connections that nobody accepts.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname())
