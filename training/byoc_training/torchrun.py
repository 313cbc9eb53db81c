"""torchrun for a job: its command line, its network, and what it says of a failure.

Fixed ranks (``--node_rank``) and a static rendezvous on port 7777 of the first of the sorted
hosts, as Amazon's toolkits and SDK v3 have it; `peers` sees to it that all hosts begin together.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byoc_training.devices import EFA_DEVICES
from byoc_training.environment import PROCESSES
from byoc_training.errors import ContractError, SourceError
from byoc_training.program import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc_training.environment import Environment
    from byoc_training.program import Program

#: SDK v2's name of the same number, for MPI and for torchrun.
SDK_PROCESSES = "sagemaker_mpi_num_of_processes_per_host"
_SUMMARY = re.compile(
    r"Root Cause \(first observed failure\):\s+\[\d+\]:"
    r".*?rank\s+: (?P<rank>\d+) \(local_rank: \d+\)"
    r"\s+exitcode\s+: (?P<code>-?\d+) \(pid: \d+\)",
    re.DOTALL,
)
#: Lines of torchrun's own log.
_LOG = re.compile(r"^[EWI]\d{4} [^\n]*\] [^\n]*\n?", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"
_CHILD_FAILED = re.compile(r"^torch\.distributed\.elastic\.\S*ChildFailedError:", re.MULTILINE)


@dataclass(frozen=True)
class RankFailure:
    """The first rank of this host that failed, as torchrun has seen it.

    Attributes:
        rank: Its global rank.
        status: Its exit code; -n for signal n.
    """

    rank: int
    status: int

    @property
    def code(self) -> int:
        """As a shell would have it."""
        return 128 - self.status if self.status < 0 else self.status

    @property
    def signal(self) -> int:
        """The signal that ended it, or 0."""
        return max(0, -self.status)


def find_failure(stderr: bytes) -> RankFailure | None:
    """The failure in torchrun's own summary, which ends its error output."""
    summaries = list(_SUMMARY.finditer(stderr.decode("utf-8", "replace")))
    if not summaries:
        return None
    return RankFailure(int(summaries[-1]["rank"]), int(summaries[-1]["code"]))


def words_of_ranks(stderr: bytes) -> bytes:
    """The error output without torchrun's own log and summary."""
    text = stderr.decode("utf-8", "surrogateescape")
    ends = list(_CHILD_FAILED.finditer(text))
    if ends:
        begin = text.rfind(_TRACEBACK, 0, ends[-1].start())
        text = text[: max(begin, 0)]
    return _LOG.sub("", text).encode("utf-8", "surrogateescape")


def processes_per_host(environment: Environment) -> int:
    """As many as GPUs, else one; a reserved hyperparameter beats both.

    Raises:
        ContractError: The hyperparameter is not a positive whole number.
    """
    for key in (PROCESSES, SDK_PROCESSES):
        asked = environment.reserved_text(key)
        if asked is None:
            continue
        if not asked.isdecimal() or int(asked) < 1:
            raise ContractError(f"{key} is {asked!r}; expected a whole number from 1 up")
        return int(asked)
    return len(environment.devices.gpus) or 1


def ranks(environment: Environment) -> tuple[int, ...]:
    """This host's global ranks, where all hosts have as many.

    Raises:
        ContractError: The number of processes makes no sense.
    """
    count = processes_per_host(environment)
    index = environment.distribution_hosts.index(environment.cluster.current_host)
    return tuple(range(index * count, (index + 1) * count))


def command(environment: Environment, program: Program, port: int) -> tuple[str, ...]:
    """The command line up to the program's own arguments.

    Args:
        environment: The job.
        program: What each rank runs.
        port: Of the rendezvous, on the first host.

    Raises:
        SourceError: The program is nothing that Python runs.
        ContractError: The number of processes makes no sense.
    """
    if program.kind is Kind.COMMAND:
        raise SourceError(
            f"torchrun needs a Python program; {program.name} is a {program.kind.value}"
        )
    hosts = environment.distribution_hosts
    words: tuple[str, ...] = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(hosts)}",
        f"--nproc_per_node={processes_per_host(environment)}",
    )
    if len(hosts) == 1:
        # A free port instead of torchrun's constant one: jobs may run side by side.
        words = (*words, "--standalone")
    else:
        rank = hosts.index(environment.cluster.current_host)
        words = (
            *words,
            f"--master_addr={environment.master_host}",
            f"--master_port={port}",
            f"--node_rank={rank}",
        )
    return words if program.kind is Kind.SCRIPT else (*words, "-m")


def variables(environment: Environment, environ: Mapping[str, str]) -> dict[str, str]:
    """What the ranks' network needs and the request has not set itself.

    NCCL's own choice of interfaces is left alone unless the platform names one; gloo's is the
    one of the host's name, which on the platform need not resolve.
    """
    cluster = environment.cluster
    wanted: dict[str, str] = {}
    if len(environment.distribution_hosts) > 1:
        named = cluster.raw.get("network_interface_name") == cluster.interface
        if cluster.interface != "lo":
            wanted["GLOO_SOCKET_IFNAME"] = cluster.interface
            if named and environment.devices.gpus:
                wanted["NCCL_SOCKET_IFNAME"] = cluster.interface
        if environment.devices.gpus and any(EFA_DEVICES.glob("uverbs*")):
            wanted["FI_PROVIDER"] = "efa"
    return {name: value for name, value in wanted.items() if name not in environ}
