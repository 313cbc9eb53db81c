"""The process that has torch and forks a process for each model.

It stays single-threaded and never touches CUDA, so that a fork of it is as good as a start. It is
the parent of all models: it starts, stops and reaps them, and when the front goes, they go.

Messages are JSON objects, one a packet of the control socket. From the front: ``fork`` (with the
model's end of a channel, and memory for what it runs), ``stop``, ``kill``. To it: ``ready`` or
``failed``, ``forked``, ``exited``.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from byoc_serving import logs
from byoc_serving.errors import DependencyError, StartError
from byoc_serving.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("byoc_serving")

#: A model's process gets this long between SIGTERM and SIGKILL.
STOP_GRACE_S = 2.0
_PACKET_BYTES = 64 * 1024


class Zygote:
    """Forks, stops and reaps; runs until the front closes the control socket.

    Args:
        control: the packet socket to the front.
        settings: the server's.
    """

    def __init__(self, control: socket.socket, settings: Settings) -> None:
        self._control = control
        self._settings = settings
        #: Process id to when it will be killed, in seconds of the monotonic clock.
        self._children: dict[int, float | None] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.settimeout(0)

    def run(self) -> None:
        """Serve the front."""
        signal.signal(signal.SIGCHLD, _noted)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while True:
            ready = {number for number, _ in poller.poll(self._patience_ms())}
            if self._wake_read.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
            self._reap()
            self._kill_overdue()
            if self._control.fileno() in ready and not self._obey():
                break
        self._end()

    def send(self, message: dict[str, Any]) -> None:
        """Tell the front; when it is gone, the next read says so."""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(message).encode())

    def _patience_ms(self) -> int | None:
        ends = [end for end in self._children.values() if end is not None]
        return max(0, int((min(ends) - time.monotonic()) * 1000) + 1) if ends else None

    def _obey(self) -> bool:
        """One message of the front; False when there will be no more."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, _PACKET_BYTES, 2)
        except ConnectionError:
            return False
        if not data:
            return False
        message = json.loads(data)
        if message["do"] == "fork":
            self._fork(message, fds)
        elif message["pid"] in self._children:
            if message["do"] == "kill":
                _signal_group(message["pid"], signal.SIGKILL)
            else:
                self._stop(message["pid"])
        return True

    def _fork(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            _close(fds)
            self.send({"is": "unforked", "id": message["id"], "cause": str(error)})
            return
        if pid == 0:
            self._become(message, fds)
        _close(fds)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self._children[pid] = None
        self.send({"is": "forked", "id": message["id"], "pid": pid})

    def _become(self, message: dict[str, Any], fds: list[int]) -> NoReturn:
        """Go on as the process of one model."""
        status = 1
        try:
            # A group of its own, so that what the handler starts ends with it.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for held in (self._control, self._wake_read, self._wake_write):
                held.close()
            from byoc_serving.multimodel.host import serve  # noqa: PLC0415 - a child's part alone
            from byoc_serving.running import Running  # noqa: PLC0415 - same

            channel, running = fds
            shared = Running(1, running)
            os.close(running)
            status = serve(socket.socket(fileno=channel), shared, self._settings, message)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
            traceback.print_exc()
        finally:
            logging.shutdown()
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _stop(self, pid: int) -> None:
        _signal_group(pid, signal.SIGTERM)
        if self._children[pid] is None:
            self._children[pid] = time.monotonic() + STOP_GRACE_S

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for pid, end in self._children.items():
            if end is not None and end <= now:
                _signal_group(pid, signal.SIGKILL)
                self._children[pid] = now + STOP_GRACE_S

    def _reap(self) -> None:
        while self._children:
            # Looked at before it is reaped: until then nobody else can get its number.
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return
            _signal_group(found.si_pid, signal.SIGKILL)
            _, status = os.waitpid(found.si_pid, 0)
            if self._children.pop(found.si_pid, -1.0) != -1.0:
                code = os.waitstatus_to_exitcode(status)
                self.send({"is": "exited", "pid": found.si_pid, "code": code})

    def _end(self) -> None:
        """The front is gone: so are its models, soon."""
        for pid in self._children:
            _signal_group(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_GRACE_S
        while self._children and time.monotonic() < end:
            select.select([self._wake_read], [], [], max(0.0, end - time.monotonic()))
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(4096)
            self._reap()
        for pid in self._children:
            _signal_group(pid, signal.SIGKILL)


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has told already."""
    _ = number, frame


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def prepare() -> dict[str, Any]:
    """Import and touch what every model needs, so that its process shares these pages.

    Returns:
        What the front may want to know: versions, threads, memory.

    Raises:
        DependencyError: torch or numpy is missing.
    """
    # Libraries start their threads at import; a process with threads must not fork.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    try:
        import numpy as np  # noqa: PLC0415, F401 - the zygote is what imports torch
        import torch  # noqa: PLC0415 - same

        import byoc_serving.codecs  # noqa: PLC0415
        import byoc_serving.multimodel.host  # noqa: PLC0415
    except ImportError as error:
        raise DependencyError(
            f"{error.name or error} is not installed; run serve in the inference image, or "
            "install sagemaker-byoc[serve]"
        ) from error
    _ = byoc_serving
    torch.set_num_threads(1)
    with torch.inference_mode():
        # The first forward of a process initialises libraries; here it does so for all.
        warm = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        torch.nn.Linear(8 * 36, 4)(warm.eval()(torch.zeros(1, 1, 8, 8)))
    gc.collect()
    # Collections in a child would write to, and so copy, every page of these objects.
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    return {"torch": torch.__version__, "threads": threads}


def main() -> NoReturn:
    """``python -m byoc_serving.multimodel.zygote <descriptor of the control socket>``."""
    # -m puts the working directory first, which is nobody's library.
    if sys.path and sys.path[0] in {"", str(Path.cwd())}:
        del sys.path[0]
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = Settings.from_environ(os.environ)
    logs.configure(settings)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("byoc-zygote")
    zygote = Zygote(socket.socket(fileno=int(sys.argv[1])), settings)
    try:
        facts = prepare()
    except StartError as error:
        zygote.send({"is": "failed", "cause": str(error)})
        sys.exit(error.exit_code)
    zygote.send({"is": "ready", **facts})
    zygote.run()
    # Nothing of torch's needs an orderly end here.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
