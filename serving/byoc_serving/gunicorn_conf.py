"""gunicorn's settings, from ours; nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

#: Threads of the WSGI front beyond those that may wait for the model: pings and refusals.
SPARE_THREADS = 16
#: The platform sends SIGKILL 30 s after SIGTERM.
GRACEFUL_TIMEOUT_S = 25
#: The platform's idle time is not documented; a client that waits 60 s must find us there.
KEEPALIVE_S = 75


def options(settings: Settings, workers: int, temporary: Path) -> dict[str, Any]:
    """Gunicorn's options.

    Args:
        settings: ours.
        workers: processes with a model.
        temporary: a writable directory, for when /dev/shm is missing.
    """
    shm = Path("/dev/shm")  # noqa: S108 - heartbeat files belong in memory
    in_memory = shm.is_dir() and os.access(shm, os.W_OK | os.X_OK)
    asgi = settings.front == "asgi"
    return {
        "bind": f"{_bracketed(settings.host)}:{settings.port}",
        "workers": workers,
        "worker_class": f"byoc_serving.workers.{'AsgiWorker' if asgi else 'WsgiWorker'}",
        "threads": 1 if asgi else settings.queue_requests + SPARE_THREADS,
        "worker_connections": 16384,
        "backlog": 2048,
        "keepalive": KEEPALIVE_S,
        # The model may take as long as the platform allows; a body may pause for 30 s.
        "timeout": 0,
        "graceful_timeout": GRACEFUL_TIMEOUT_S,
        "worker_tmp_dir": str(shm if in_memory else temporary),
        "control_socket_disable": True,
        "asgi_lifespan": "off",
        "loglevel": "info",
        "accesslog": "-" if settings.access_log else None,
        "logger_class": "byoc_serving.gunicorn_log.GunicornLog",
        "proc_name": "byoc-serve",
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
