"""gunicorn's settings, from ours; nothing here imports torch."""

from __future__ import annotations

import contextlib
import os
import resource
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
#: Open connections of one worker.
MAX_CONNECTIONS = 16384
#: File descriptors for everything else: the handler's files, libraries, pipes.
SPARE_DESCRIPTORS = 256


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
        "worker_class": _worker_class(settings),
        "threads": 1 if asgi else settings.admitted_requests + SPARE_THREADS,
        "worker_connections": connections_allowed(),
        "backlog": 2048,
        "keepalive": KEEPALIVE_S,
        # The model may take as long as the platform allows; a body may pause for 30 s.
        "timeout": 0,
        "graceful_timeout": GRACEFUL_TIMEOUT_S,
        "worker_tmp_dir": str(shm if in_memory else temporary),
        "control_socket_disable": True,
        # Nobody in front of us is trusted to rewrite requests: X-Forwarded-* and SCRIPT_NAME are
        # headers like any other.
        "forwarded_allow_ips": "",
        "websocket_max_message_size": settings.websocket_message_bytes,
        "asgi_lifespan": "off",
        # A client that is gone takes its request along at once.
        "asgi_disconnect_grace_period": 0,
        "loglevel": "info",
        # Ours knows where the time went.
        "accesslog": None,
        "logger_class": "byoc_serving.gunicorn_log.GunicornLog",
        "proc_name": "byoc-serve",
    }


def connections_allowed() -> int:
    """Connections a worker may hold: as many as it has file descriptors for, to spare some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(64, min(MAX_CONNECTIONS, soft - SPARE_DESCRIPTORS))


def raise_descriptor_limit() -> None:
    """As many file descriptors as the container allows: a shell's limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _worker_class(settings: Settings) -> str:
    front = "Asgi" if settings.front == "asgi" else "Wsgi"
    if settings.multi_model:
        return f"byoc_serving.multimodel.workers.{front}ModelsWorker"
    return f"byoc_serving.workers.{front}Worker"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
