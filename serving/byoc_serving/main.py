"""The command ``serve``: exit 0 after a clean stop, 2 for bad settings, 3 when nothing loads."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from byoc_serving.errors import DependencyError, SettingsError, StartError, UsageError
from byoc_serving.machine import Machine, tree_bytes
from byoc_serving.settings import Settings
from byoc_serving.workspace import Workspace, sweep

if TYPE_CHECKING:
    from types import FrameType

    from byoc_serving.arguments import Arguments

log = logging.getLogger("byoc_serving")

#: What every server needs; pillow, boto3 and uvloop are needed by some.
_NEEDED = ("gunicorn", "flask", "numpy", "orjson", "torch")


def main() -> NoReturn:
    """Serve the model below ``/opt/ml`` until SIGTERM.

    Raises:
        SystemExit: always.
    """
    # As PID 1 nothing ends this process by default; before gunicorn listens, this does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    # The model directory is read-only, and where it is not it stays as it was.
    sys.dont_write_bytecode = True
    try:
        Path.cwd()
    except FileNotFoundError:
        # It was removed under us; gunicorn insists on one, whichever it is.
        os.chdir("/")
    try:
        arguments = _arguments(sys.argv[1:])
        settings = Settings.from_environ(os.environ)
    except UsageError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except SettingsError as error:
        for problem in error.problems:
            _say(problem)
        sys.exit(error.exit_code)
    try:
        if arguments is not None and arguments.check:
            _check(settings, arguments)
        code = _serve(settings)
    except StartError as error:
        _say(str(error))
        code = error.exit_code
    sys.exit(code)


def _arguments(words: list[str]) -> Arguments | None:
    """What was asked for besides serving; None: nothing, as the platform calls it."""
    if not words:
        return None
    from byoc_serving.arguments import parse  # noqa: PLC0415 - not for the platform's call

    return parse(words)


def _need_packages() -> None:
    missing = [name for name in _NEEDED if not _installed(name)]
    if missing:
        raise DependencyError(
            f"{', '.join(missing)} not installed here; run serve in the inference image, or "
            "install sagemaker-byoc[serve]"
        )


def _check(settings: Settings, arguments: Arguments) -> NoReturn:
    _need_packages()
    from byoc_serving import check, logs  # noqa: PLC0415 - what they import is there now

    logs.configure(settings)
    held = Workspace()
    try:
        code = check.run(settings, arguments, held.path)
    finally:
        held.remove()
    # A thread may still try a faster form of the model; nobody waits for it any more.
    _end_worker(code)


def _serve(settings: Settings) -> int:
    _need_packages()
    # Gunicorn reads this as it is imported, and fails if it is no number; it means nothing here.
    hidden = os.environ.pop("WEB_CONCURRENCY", None)
    from byoc_serving import (  # noqa: PLC0415 - gunicorn is there now
        gunicorn_conf,
        isolated,
        logs,
        master,
    )

    if hidden is not None:
        os.environ["WEB_CONCURRENCY"] = hidden
    logs.configure(settings)
    _check_port(settings)
    gunicorn_conf.raise_descriptor_limit()
    machine = Machine.look(os.environ)
    sweep()
    held = Workspace()
    workspace = held.path
    owner = os.getpid()
    app: master.Application
    if settings.multi_model:
        # One front knows all models; these have processes of their own, whatever the topology.
        app = master.Application(settings, machine, 1, workspace)
    elif settings.topology == "isolated" or (settings.topology == "auto" and machine.gpus):
        app = isolated.IsolatedApplication(settings, machine, workspace)
    else:
        workers = settings.workers or machine.workers(tree_bytes(settings.model_dir))
        app = master.Application(settings, machine, workers, workspace)
    code = 0
    try:
        app.run()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        if os.getpid() != owner:
            # A worker comes back out of the fork through here as well.
            _end_worker(code)
        held.remove()
    master.reset_signals()
    cause = master.failure_line(app.table)
    if cause is not None:
        _say(cause)
        return code or 3
    return code


def _installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        return False


def _check_port(settings: Settings) -> None:
    """Find out in one clear line what gunicorn would retry for five seconds.

    Raises:
        StartError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host.strip("[]"), settings.port))
            probe.listen(1)
        except OSError as error:
            raise StartError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
                "stop what uses the port, or set SAGEMAKER_BIND_TO_PORT (BYOC_HOST for the address)"
            ) from None


def _end_worker(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # Closed by the handler, perhaps, or nobody reads it any more: this is the end all the same.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    _ = number, frame
    sys.exit(0)


def _say(text: str) -> None:
    """One line on standard error, whatever the log's state."""
    sys.stdout.flush()
    print(f"serve: {' '.join(text.split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
