"""The hosts of a job, from resourceconfig.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from byoc_training import config
from byoc_training.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc_training.console import Console
    from byoc_training.devices import Devices
    from byoc_training.paths import Paths

HOMOGENEOUS = "homogeneousCluster"


@dataclass(frozen=True)
class Cluster:
    """Who takes part, and who we are.

    Attributes:
        hosts: Names in lexicographic order, the order of the ranks.
        current_host: Our name among them.
        instance_type: Such as ``ml.g5.2xlarge``; ``local`` when nobody says.
        group: Our instance group.
        groups: Instance groups as the file lists them, by name, in its order.
        interface: An existing network interface for traffic between the hosts.
        raw: The whole file.
    """

    hosts: tuple[str, ...] = ("algo-1",)
    current_host: str = "algo-1"
    instance_type: str = "local"
    group: str = HOMOGENEOUS
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interface: str = "lo"
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Index of this host; equal on all hosts whatever order the groups are in."""
        return self.hosts.index(self.current_host)

    def group_hosts(self, name: str) -> tuple[str, ...]:
        """Hosts of an instance group, in the order of their ranks."""
        return tuple(sorted(self.groups.get(name, {}).get("hosts", ())))


def read(paths: Paths, devices: Devices, wanted_interface: str | None, console: Console) -> Cluster:
    """Read resourceconfig.json; without it the job has the one host ``algo-1``.

    Args:
        paths: The job's directories.
        devices: This host's hardware.
        wanted_interface: ``sagemaker_network_interface_name``, which beats the file.
        console: Takes the warning about an interface that does not exist.

    Raises:
        ContractError: Malformed, a host twice, or the current host not among the hosts.
    """
    path = paths.config / "resourceconfig.json"
    raw = config.read_object(path) or {}
    hosts = config.texts(path, raw, "hosts")
    current = config.text(path, raw, "current_host", "")
    if hosts is None or not hosts:
        hosts = (current or "algo-1",)
    if not current:
        if len(hosts) > 1:
            raise ContractError(
                f"{path}: current_host is missing; expected one of {', '.join(sorted(hosts))}"
            )
        current = hosts[0]
    if len(set(hosts)) != len(hosts):
        raise ContractError(f"{path}: hosts names a host twice: {', '.join(sorted(hosts))}")
    if current not in hosts:
        raise ContractError(
            f"{path}: current_host {current!r} is not among hosts ({', '.join(sorted(hosts))})"
        )
    return Cluster(
        hosts=tuple(sorted(hosts)),
        current_host=current,
        instance_type=config.text(path, raw, "current_instance_type", "local"),
        group=config.text(path, raw, "current_group_name", HOMOGENEOUS),
        groups=_groups(raw),
        interface=_interface(
            wanted_interface or config.text(path, raw, "network_interface_name", ""),
            devices,
            console,
        ),
        raw=raw,
    )


def _groups(raw: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Instance groups of the right form; others are ignored, as no job depends on them."""
    listed = raw.get("instance_groups")
    found: dict[str, Mapping[str, Any]] = {}
    for group in listed if isinstance(listed, list) else ():
        if not isinstance(group, dict):
            continue
        name, hosts = group.get("instance_group_name"), group.get("hosts", [])
        if isinstance(name, str) and isinstance(hosts, list):
            found[name] = {**group, "hosts": [host for host in hosts if isinstance(host, str)]}
    return found


def _interface(wanted: str, devices: Devices, console: Console) -> str:
    if wanted and wanted not in devices.interfaces:
        console.warning(
            f"network interface {wanted!r} does not exist here (there are: "
            f"{', '.join(devices.interfaces) or 'none'}); using {devices.default_interface!r}"
        )
    return wanted if wanted in devices.interfaces else devices.default_interface
