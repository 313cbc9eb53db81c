"""Containers of a server that was killed: nobody else would ever end them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def end(folder: Path) -> None:
    """End what still serves from a root below ``folder``: processes, and the engine's containers.

    Args:
        folder: Absolute, and of this state folder alone; nothing of the running server is there.
    """
    wanted = f"BYOC_ROOT={folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if wanted in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    with contextlib.suppress(Exception):  # there is no engine, or it has removed them meanwhile
        import docker  # noqa: PLC0415 - of the extra control

        client = docker.from_env(timeout=5)
        for container in client.containers.list(filters={"name": "byoc-serve-"}):
            mounts = container.attrs.get("Mounts", ())
            if any(str(one.get("Source", "")).startswith(f"{folder}/") for one in mounts):
                container.remove(force=True)
