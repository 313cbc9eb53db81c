"""Everything that the platform says about a job, as one frozen object."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_training import channels as channels_module
from byoc_training import cluster as cluster_module
from byoc_training import config, hyperparameters
from byoc_training.console import INFO, Console
from byoc_training.errors import ContractError
from byoc_training.hyperparameters import Hyperparameter, as_flag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc_training.channels import Channel
    from byoc_training.cluster import Cluster
    from byoc_training.devices import Devices
    from byoc_training.paths import Paths

#: Options that start the program on every process of a cluster (SDK v2, ``distribution=``).
DISTRIBUTION_KEYS = (
    "sagemaker_mpi_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_ddp_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_torch_distributed_enabled",
)
#: Our own choice of a launcher, for jobs that no SDK makes; the hyperparameter beats the variable.
LAUNCHER, PROCESSES = "byoc_launcher", "byoc_processes_per_host"
LAUNCHERS = ("direct", "torchrun")


@dataclass(frozen=True)
class Environment:
    """A job as the container sees it.

    Attributes:
        paths: Its directories.
        hyperparameters: The user's, in the order of the file.
        reserved: Values of the keys that the program never sees, by name.
        channels: Input channels by name.
        cluster: Its hosts.
        devices: This host's hardware.
        input_data_config: inputdataconfig.json as it is.
        checkpoints: Directory that is mirrored to S3; None when the job has none.
        job_name: Empty when nobody says.
        region: Empty when nobody says.
        log_level: Number of the standard logging module.
    """

    paths: Paths
    hyperparameters: tuple[Hyperparameter, ...]
    reserved: Mapping[str, Any]
    channels: Mapping[str, Channel]
    cluster: Cluster
    devices: Devices
    input_data_config: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: Path | None = None
    job_name: str = ""
    region: str = ""
    log_level: int = INFO

    def enabled(self, key: str) -> bool:
        """Whether a reserved switch is on."""
        return as_flag(self.reserved.get(key))

    def reserved_text(self, key: str) -> str | None:
        """A reserved text, or None when it is absent or empty."""
        value = self.reserved.get(key)
        return None if value is None or value == "" else str(value)

    @property
    def launcher(self) -> str | None:
        """Our own choice of a launcher, if the job or a variable makes one."""
        return self.reserved_text(LAUNCHER)

    @property
    def distribution_groups(self) -> tuple[str, ...]:
        """Instance groups that train together; none when no distribution is asked for.

        Those that the job names. Else, with our own choice of torchrun, all of them; with one of
        SDK v2's switches the group of this host, as Amazon's toolkit has it.
        """
        named = self.reserved.get("sagemaker_distribution_instance_groups")
        if isinstance(named, list):
            return tuple(str(name) for name in named)
        if self.launcher == "torchrun":
            return tuple(dict.fromkeys((*self.cluster.groups, self.cluster.group)))
        return (self.cluster.group,) if any(map(self.enabled, DISTRIBUTION_KEYS)) else ()

    @property
    def distribution_hosts(self) -> tuple[str, ...]:
        """Hosts that train together, in the order of their ranks."""
        if not self.cluster.groups:
            return self.cluster.hosts
        groups = self.distribution_groups
        return tuple(sorted({host for name in groups for host in self.cluster.group_hosts(name)}))

    @property
    def master_host(self) -> str:
        """The host of rank 0."""
        return (self.distribution_hosts or self.cluster.hosts)[0]


def read(
    paths: Paths, environ: Mapping[str, str], devices: Devices, console: Console
) -> Environment:
    """Read the job's configuration files and variables.

    Args:
        paths: Where they are.
        environ: Variables of the process, including the request's.
        devices: This host's hardware.
        console: Takes warnings; its level becomes the job's as soon as that is known.

    Raises:
        ContractError: A file is malformed.
    """
    parameters, reserved = _hyperparameters(paths.config / "hyperparameters.json", console)
    _own(reserved, environ)
    console.level = _log_level(reserved.get("sagemaker_container_log_level"))
    interface = reserved.get("sagemaker_network_interface_name")
    cluster = cluster_module.read(paths, devices, str(interface) if interface else None, console)
    channels, input_data_config = channels_module.read(paths)
    job_name = environ.get("TRAINING_JOB_NAME") or str(reserved.get("sagemaker_job_name") or "")
    return Environment(
        paths=paths,
        hyperparameters=parameters,
        reserved=reserved,
        channels=channels,
        cluster=cluster,
        devices=devices,
        input_data_config=input_data_config,
        checkpoints=_checkpoints(paths),
        job_name=job_name,
        region=_region(environ, reserved),
        log_level=console.level,
    )


def _hyperparameters(
    path: Path, console: Console
) -> tuple[tuple[Hyperparameter, ...], dict[str, Any]]:
    users: list[Hyperparameter] = []
    reserved: dict[str, Any] = {}
    problems: list[str] = []
    for name, raw in (config.read_object(path) or {}).items():
        if not name:
            console.warning(f"{path.name}: ignoring a hyperparameter without a name")
            continue
        try:
            parameter = hyperparameters.parse(name, raw)
        except ContractError as error:
            problems.append(str(error))
            continue
        if parameter.reserved:
            reserved[name] = parameter.value
        else:
            users.append(parameter)
    if problems:
        raise ContractError("; ".join(problems))
    return tuple(users), reserved


def _own(reserved: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Our own choices, from the variables where the job makes none.

    Raises:
        ContractError: There is no such launcher, or the number is none.
    """
    for key in (LAUNCHER, PROCESSES):
        if environ.get(key.upper()) and reserved.get(key) in (None, ""):
            reserved[key] = environ[key.upper()]
    launcher = reserved.get(LAUNCHER)
    if launcher not in (None, "", *LAUNCHERS):
        raise ContractError(
            f"{LAUNCHER} (or {LAUNCHER.upper()}) is {launcher!r}; expected one of "
            f"{', '.join(LAUNCHERS)}"
        )


def _log_level(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return INFO


def _checkpoints(paths: Paths) -> Path | None:
    """The directory when the platform made it: without CheckpointConfig there is none.

    checkpointconfig.json is undocumented, so nothing depends on it: when it names an existing
    directory, that is taken.
    """
    try:
        raw = config.read_object(paths.config / "checkpointconfig.json") or {}
    except ContractError:
        raw = {}
    local = raw.get("LocalPath") or raw.get("local_path")
    if isinstance(local, str) and Path(local).is_dir():
        return Path(local)
    return paths.checkpoints if paths.checkpoints.is_dir() else None


def _region(environ: Mapping[str, str], reserved: Mapping[str, Any]) -> str:
    """From the variables, else from the job's ARN ``arn:aws:sagemaker:REGION:...``."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if environ.get(name):
            return environ[name]
    fields = environ.get("TRAINING_JOB_ARN", "").split(":")
    if len(fields) > 3 and fields[3]:
        return fields[3]
    return str(reserved.get("sagemaker_region") or "")
