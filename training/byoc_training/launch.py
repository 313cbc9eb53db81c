"""The plan: how the program is started, as data."""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from byoc_training import torchrun
from byoc_training.errors import UnavailableError
from byoc_training.paths import DEFAULT_ROOT
from byoc_training.program import Kind, Program
from byoc_training.settings import MASTER_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from byoc_training.environment import Environment


class Launcher(enum.Enum):
    """What starts the program."""

    DIRECT = "direct"
    TORCHRUN = "torchrun"
    TOOLKIT = "toolkit"


#: Switches that only Amazon's toolkit implements, and its runner for each, in its order.
TOOLKIT_RUNNERS: Mapping[str, str] = {
    "sagemaker_mpi_enabled": "MPI",
    "sagemaker_distributed_dataparallel_enabled": "SMDataParallel",
    "sagemaker_pytorch_xla_multi_worker_enabled": "PyTorchXLA",
}
#: What those runners start, and what no image of ours has.
RUNNER_NEEDS: Mapping[str, tuple[str, ...]] = {
    "MPI": ("mpirun", "/usr/sbin/sshd"),
    "SMDataParallel": ("mpirun", "/usr/sbin/sshd"),
}
#: Of SDK v2's ``distribution=``. Its ``pytorchddp`` means native DDP over Amazon's MPI set-up;
#: the script sees the same variables under torchrun, which needs neither ssh nor mpirun.
TORCHRUN_SWITCHES = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")


class Stop(enum.Enum):
    """Whom a stop signal is handed on to.

    A Python program is told alone, as ``docker stop`` would tell it: its data-loading workers must
    live until it has saved its checkpoint. What is left of its group is told when it ends. Shells
    and the toolkit hand nothing on, so their whole group is told at once. torchrun hands it on,
    but kills the ranks 30 s later; so the ranks are told, and it sees them end.
    """

    PROGRAM = "the program"
    GROUP = "its process group"
    CHILDREN = "its ranks"


@dataclass(frozen=True)
class Plan:
    """One process to start.

    Attributes:
        launcher: What starts the program.
        command: Its argument vector; no shell is involved.
        directory: Its working directory.
        variables: What is added to this process's variables.
        label: The program in messages.
        stop: Who is told first that the job stops.
        ranks: Of this host, where torchrun starts them: its end is its word for that of a rank.
    """

    launcher: Launcher
    command: tuple[str, ...]
    directory: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    label: str = "program"
    stop: Stop = Stop.PROGRAM
    ranks: tuple[int, ...] = ()


def choose_launcher(environment: Environment) -> tuple[Launcher, str]:
    """What the job's reserved hyperparameters ask for, and the toolkit's runner if any."""
    if environment.cluster.group in environment.distribution_groups:
        if environment.launcher:
            chosen = Launcher(environment.launcher)
            return chosen, ""
        for key, runner in TOOLKIT_RUNNERS.items():
            if environment.enabled(key):
                return Launcher.TOOLKIT, runner
        if any(map(environment.enabled, TORCHRUN_SWITCHES)):
            return Launcher.TORCHRUN, ""
    return Launcher.DIRECT, ""


def make_plan(
    environment: Environment,
    program: Program,
    arguments: tuple[str, ...],
    variables: Mapping[str, str],
    master_port: int = MASTER_PORT,
) -> Plan:
    """Decide how to start the program.

    Args:
        environment: The job.
        program: What to start.
        arguments: Its command line.
        variables: Its variables besides those of this process.
        master_port: Of torchrun's rendezvous.

    Raises:
        ContractError: A reserved hyperparameter makes no sense.
        SourceError: The program is of a kind that the launcher cannot start.
        UnavailableError: The toolkit, or what its runner starts, is needed and not installed.
    """
    launcher, runner = choose_launcher(environment)
    label, variables = program.name, dict(variables)
    if launcher is Launcher.TOOLKIT:
        command = _toolkit(environment, runner, variables)
    elif launcher is Launcher.TORCHRUN:
        start = torchrun.command(environment, program, master_port)
        module = program.kind is Kind.PACKAGE
        name = _module(program.name) if module else _plain(program.name)
        command = (*start, name, *arguments)
        variables |= torchrun.variables(environment, os.environ)
    elif program.kind is Kind.PACKAGE:
        command = (sys.executable, "-m", _module(program.name), *arguments)
    elif program.kind is Kind.SCRIPT:
        command = (sys.executable, _plain(program.name), *arguments)
    else:
        command = (*program.interpreter, f"./{program.name}", *arguments)
    return Plan(
        launcher=launcher,
        command=command,
        directory=program.directory,
        variables=variables,
        label=label,
        stop=_whom_to_stop(launcher, program.kind),
        ranks=torchrun.ranks(environment) if launcher is Launcher.TORCHRUN else (),
    )


def _whom_to_stop(launcher: Launcher, kind: Kind) -> Stop:
    if launcher is Launcher.TORCHRUN:
        return Stop.CHILDREN
    group = launcher is Launcher.TOOLKIT or kind is Kind.COMMAND
    return Stop.GROUP if group else Stop.PROGRAM


def _toolkit(environment: Environment, runner: str, variables: dict[str, str]) -> tuple[str, ...]:
    if importlib.util.find_spec("sagemaker_training") is None:
        raise UnavailableError(
            f"this job asks for the {runner} runner of sagemaker-training, which is not "
            "installed; use the training image, or torchrun (sagemaker_torch_distributed_enabled)"
        )
    missing = [name for name in RUNNER_NEEDS.get(runner, ()) if shutil.which(name) is None]
    if missing:
        raise UnavailableError(
            f"this job asks for the {runner} runner of sagemaker-training, which needs "
            f"{' and '.join(missing)}; install Open MPI and openssh-server in an image of your own "
            "on top of this one, or use torchrun (sagemaker_torch_distributed_enabled)"
        )
    if environment.paths.root != DEFAULT_ROOT:
        variables["SAGEMAKER_BASE_DIR"] = str(environment.paths.root)
    return (sys.executable, "-m", "byoc_training.toolkit", runner)


def _module(name: str) -> str:
    """``pkg/train.py`` as ``python -m`` wants it."""
    return name.removesuffix(".py").replace(os.sep, ".")


def _plain(name: str) -> str:
    """A name that no interpreter reads as an option."""
    return f"./{name}" if name.startswith("-") else name
