"""The command ``train``: PID 1 of a training container, and a plain command outside of one.

``train [train] [--option value ...]``: options are handed to the program after the
hyperparameters. SageMaker runs ``<image> train``, and with ``ContainerEntrypoint`` set to this
command adds no word, or one more ``train``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from byoc_training import (
    cause,
    devices,
    environment,
    hyperparameters,
    launch,
    preflight,
    program,
    report,
    requirements,
    sm_variables,
    supervise,
    versions,
)
from byoc_training.console import Console
from byoc_training.errors import (
    Interrupted,
    PeerError,
    ProgramError,
    StorageError,
    TrainingError,
    UsageError,
)
from byoc_training.paths import DEFAULT_ROOT, Paths
from byoc_training.peers import Peers, blamed
from byoc_training.settings import Settings
from byoc_training.signals import STOPPING, StopRequested, StopSignals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from byoc_training.environment import Environment

USAGE = """\
usage: train [--option value ...]

Runs one SageMaker training job from /opt/ml (or from BYOC_ROOT). Options are handed to the
job's program after its hyperparameters.

The program is SAGEMAKER_PROGRAM or the hyperparameter sagemaker_program, else BYOC_PROGRAM.
Other settings: BYOC_STOP_GRACE_SECONDS (time from SIGTERM to SIGKILL, default 110),
BYOC_LAUNCHER (direct or torchrun; or the hyperparameter byoc_launcher),
BYOC_PROCESSES_PER_HOST (of torchrun; default: one for each GPU, else one),
BYOC_HOSTS_TIMEOUT_SECONDS (time for all hosts to come, default 900),
BYOC_MASTER_PORT (where torchrun's hosts meet, default 7777; the next one is used too)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit code: the program's own, or that of the error class.
    """
    console = Console()
    paths: Paths | None = None
    try:
        # The failure file's place is known even when the settings are not.
        paths = Paths(Path(os.environ.get("BYOC_ROOT") or DEFAULT_ROOT).absolute())
        stops = StopSignals()
        settings = Settings.from_environ(os.environ)
        arguments = list(sys.argv[1:] if argv is None else argv)
        if arguments in (["--help"], ["-h"], ["--version"]) and not paths.config.exists():
            # Outside of a job these are meant for us; in one, for the program.
            print(_version() if arguments == ["--version"] else USAGE)
            return 0
        _run(settings, paths, user_arguments(arguments), stops, console)
    except TrainingError as error:
        return _fail(error, paths, console)
    except StopRequested as request:
        return _fail(Interrupted(request.number), paths, console)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(StorageError(f"{error.strerror or error}{where}"), paths, console)
    except Exception as error:  # noqa: BLE001 - the boundary: a bug must not hide the job's end
        import traceback  # noqa: PLC0415 - only for our own bugs

        traceback.print_exc()
        bug = TrainingError(f"internal error of train: {type(error).__name__}: {error}")
        return _fail(bug, paths, console)
    return 0


def user_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """What is left for the program after the word ``train``.

    Raises:
        UsageError: The first argument is neither ``train`` nor an option.
    """
    rest = list(arguments)
    while rest and rest[0] == "train":
        del rest[0]
    if rest and not rest[0].startswith("-"):
        raise UsageError(
            f"unknown argument {rest[0]!r}; expected no argument, 'train', or options for the "
            "program (--name value)"
        )
    return tuple(rest)


def _run(
    settings: Settings, paths: Paths, extra: tuple[str, ...], stops: StopSignals, console: Console
) -> None:
    """One job from its configuration to its end."""
    environ = dict(os.environ)
    job = environment.read(paths, environ, devices.detect(), console)
    for line in preflight.lines(job):
        console.info(line)
    for line in preflight.warnings(job):
        console.warning(line)
    peers = _peers(job, settings, console)
    if peers is None:
        _host(job, settings, extra, stops, console, None)
        return
    with contextlib.closing(peers):
        try:
            _host(job, settings, extra, stops, console, peers)
        except TrainingError as error:
            _tell(peers, error)
            raise
        except StopRequested as request:
            peers.tell("stopping", signal=request.number)
            raise


def _peers(job: Environment, settings: Settings, console: Console) -> Peers | None:
    """The other hosts, where torchrun trains on several."""
    launcher, _ = launch.choose_launcher(job)
    hosts = job.distribution_hosts
    if launcher is not launch.Launcher.TORCHRUN or len(hosts) < 2:
        return None
    name = f"{job.job_name} {settings.master_port}"
    return Peers(hosts, job.cluster.current_host, name, settings.master_port + 1, console)


def _tell(peers: Peers, error: TrainingError) -> None:
    """Let the others know; where another host is the reason, that is this host's as well.

    Raises:
        PeerError: It is.
    """
    # Its own words alone: last lines of a log may speak of connections without having lost one.
    # A time-out is another rank's fault, unless the missing ones are this host's own.
    waited = broken = False
    if isinstance(error, ProgramError) and not error.missing:
        waited = error.waited
        broken = waited or cause.secondary(str(error))
    secondary = isinstance(error, PeerError) or broken
    peers.fail(str(error), secondary=secondary, waited=waited)
    found = peers.explain() if secondary else None
    if found is not None and not found.secondary:
        raise blamed(found) from error


def _host(
    job: Environment,
    settings: Settings,
    extra: tuple[str, ...],
    stops: StopSignals,
    console: Console,
    peers: Peers | None,
) -> None:
    """This host's part of the job."""
    paths, environ = job.paths, dict(os.environ)
    _make_directories(paths)
    found = program.resolve(job, environ, settings.program, console)
    requirements.install(found, environ, stops, console)
    plan = _plan(job, found, extra, environ, settings.master_port, console)
    if peers is not None:
        peers.gather(settings.hosts_timeout_seconds)
    console.info(
        f"starting {found.name} ({found.kind.value}, {plan.launcher.value}) in {plan.directory}"
    )
    outcome = supervise.run(plan, environ, stops, settings.stop_grace_seconds, console, peers)
    host = job.cluster.current_host if plan.ranks else ""
    report.check(outcome, plan.label, host, plan.ranks)
    if peers is not None:
        _finish(peers, outcome.stopped_by is not None, stops)
    for warning in model_warnings(paths.model):
        console.warning(warning)
    console.info(f"{found.name} succeeded after {outcome.seconds:.1f} s; model in {paths.model}")


def _finish(peers: Peers, stopped: bool, stops: StopSignals) -> None:  # noqa: FBT001 - private
    def told_to_stop() -> bool:
        stops.drain()
        return stopped or stops.first is not None

    peers.finish(told_to_stop, stops.wakeup)


def _plan(
    job: Environment,
    found: program.Program,
    extra: tuple[str, ...],
    environ: Mapping[str, str],
    master_port: int,
    console: Console,
) -> launch.Plan:
    arguments = (*hyperparameters.to_arguments(job.hyperparameters), *extra)
    variables, left_out = sm_variables.build(
        job,
        entry_point=found.name,
        source=found.directory,
        module_dir=found.module_dir,
        arguments=arguments,
        environ=environ,
    )
    if left_out:
        console.warning(f"too long for a variable, or not a possible name: {', '.join(left_out)}")
    return launch.make_plan(job, found, arguments, variables, master_port)


def _make_directories(paths: Paths) -> None:
    """The folders of what the job is to leave behind, and the proof that it can.

    Raises:
        StorageError: One cannot be made, or the model's takes no file.
    """
    for folder in (paths.model, paths.output_data):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # noqa: PERF203 - two folders
            raise StorageError(f"cannot make {folder}: {error.strerror}") from error
    probe = paths.model / f".byoc-probe-{os.getpid()}"
    try:
        try:
            # As much as a file system's smallest unit: an empty file fits where nothing else does.
            probe.write_bytes(bytes(4096))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write in {paths.model}: {error.strerror}; the job could not save its model "
            "(VolumeSizeInGB is the disk's size)"
        ) from error


def model_warnings(model: Path) -> list[str]:
    """What hosting will not like about the model directory."""
    links: list[str] = []
    files = 0
    for folder, directories, names in os.walk(model):
        files += len(names)
        links += [
            os.path.relpath(os.path.join(folder, name), model)  # noqa: PTH118 - walk gives text
            for name in (*directories, *names)
            if os.path.islink(os.path.join(folder, name))  # noqa: PTH114, PTH118 - same
        ]
    if links:
        shown = ", ".join(sorted(links)[:10])
        return [f"symbolic links in {model}: {shown}; hosting refuses archives that have any"]
    return [] if files else [f"{model} is empty: the job saved no model"]


def _fail(error: TrainingError, paths: Paths | None, console: Console) -> int:
    # The end is near; a stop signal must not cut its report off.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if paths is not None:
        report.write_failure(paths.failure, report.failure_text(error), console)
    console.error(f"{error} (exit code {error.exit_code})")
    return error.exit_code


def _version() -> str:
    name = "sagemaker_byoc"
    return f"sagemaker-byoc {versions.installed((name,)).get(name, 'unknown')}"


if __name__ == "__main__":
    sys.exit(main())
