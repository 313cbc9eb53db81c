"""The plan: how the program is started, as data."""

from __future__ import annotations

import enum
import importlib.util
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from byoc_training.errors import ContractError, SourceError, UnavailableError
from byoc_training.paths import DEFAULT_ROOT
from byoc_training.program import Kind, Program
from byoc_training.sm_variables import MASTER_PORT

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
    "sagemaker_pytorch_ddp_enabled": "SMDataParallel",
    "sagemaker_distributed_dataparallel_enabled": "SMDataParallel",
    "sagemaker_pytorch_xla_multi_worker_enabled": "PyTorchXLA",
}
TORCHRUN_SWITCH = "sagemaker_torch_distributed_enabled"
PROCESSES_PER_HOST = "sagemaker_mpi_num_of_processes_per_host"


@dataclass(frozen=True)
class Plan:
    """One process to start.

    Attributes:
        launcher: What starts the program.
        command: Its argument vector; no shell is involved.
        directory: Its working directory.
        variables: What is added to this process's variables.
        label: The program in messages.
        stop_whole_group: Whether SIGTERM goes to the whole process group at once. Shells and
            the toolkit do not hand it on, so their children are told directly. A Python program
            is told alone, as ``docker stop`` would tell it: its data-loading workers must live
            until it has saved its checkpoint. What is left of its group is told when it ends.
    """

    launcher: Launcher
    command: tuple[str, ...]
    directory: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    label: str = "program"
    stop_whole_group: bool = False


def choose_launcher(environment: Environment) -> tuple[Launcher, str]:
    """What the job's reserved hyperparameters ask for, and the toolkit's runner if any."""
    if environment.cluster.group in environment.distribution_groups:
        for key, runner in TOOLKIT_RUNNERS.items():
            if environment.enabled(key):
                return Launcher.TOOLKIT, runner
        if environment.enabled(TORCHRUN_SWITCH):
            return Launcher.TORCHRUN, ""
    return Launcher.DIRECT, ""


def make_plan(
    environment: Environment,
    program: Program,
    arguments: tuple[str, ...],
    variables: Mapping[str, str],
) -> Plan:
    """Decide how to start the program.

    Args:
        environment: The job.
        program: What to start.
        arguments: Its command line.
        variables: Its variables besides those of this process.

    Raises:
        ContractError: A reserved hyperparameter makes no sense.
        SourceError: The program is of a kind that the launcher cannot start.
        UnavailableError: The toolkit is needed and not installed.
    """
    launcher, runner = choose_launcher(environment)
    label, variables = program.name, dict(variables)
    if launcher is Launcher.TOOLKIT:
        command = _toolkit(environment, runner, variables)
    elif launcher is Launcher.TORCHRUN:
        command = (*_torchrun(environment, program), program.name, *arguments)
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
        stop_whole_group=launcher is Launcher.TOOLKIT
        or (launcher is Launcher.DIRECT and program.kind is Kind.COMMAND),
    )


def processes_per_host(environment: Environment) -> int:
    """As many as GPUs, else one; a reserved hyperparameter beats both.

    Raises:
        ContractError: The hyperparameter is not a positive whole number.
    """
    asked = environment.reserved_text(PROCESSES_PER_HOST)
    if asked is None:
        return len(environment.devices.gpus) or 1
    if not asked.isdecimal() or int(asked) < 1:
        raise ContractError(f"{PROCESSES_PER_HOST} is {asked!r}; expected a whole number from 1 up")
    return int(asked)


def _torchrun(environment: Environment, program: Program) -> tuple[str, ...]:
    if program.kind is not Kind.SCRIPT:
        raise SourceError(
            f"{TORCHRUN_SWITCH} needs a Python script; {program.name} is a {program.kind.value}"
        )
    hosts = environment.distribution_hosts
    command = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(hosts)}",
        f"--nproc_per_node={processes_per_host(environment)}",
    )
    if len(hosts) == 1:
        # A free port instead of torchrun's constant one: jobs may run side by side.
        return (*command, "--standalone")
    return (
        *command,
        f"--master_addr={environment.master_host}",
        f"--master_port={MASTER_PORT}",
        f"--node_rank={hosts.index(environment.cluster.current_host)}",
    )


def _toolkit(environment: Environment, runner: str, variables: dict[str, str]) -> tuple[str, ...]:
    if importlib.util.find_spec("sagemaker_training") is None:
        raise UnavailableError(
            f"this job asks for the {runner} runner of sagemaker-training, which is not "
            "installed; use the training image, or torchrun (sagemaker_torch_distributed_enabled)"
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
