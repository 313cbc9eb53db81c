"""What the platform writes below ``/opt/ml`` before a training job starts (contract section 2).

The three documented files have the members and the compact form of the platform's. The others are
observed there, their content is not documented: they carry what the request has under their name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HOMOGENEOUS = "homogeneousCluster"
FOLDERS = ("input/config", "input/data", "model", "output/data")
#: Observed files by the member of the request that they come from.
_OBSERVED = {
    "CheckpointConfig": "checkpointconfig.json",
    "DebugHookConfig": "debughookconfig.json",
    "ProfilerConfig": "profilerconfig.json",
}


def write(
    root: Path, request: Mapping[str, Any], host: str, groups: Mapping[str, list[str]], eth: str
) -> None:
    """Make folders and files of one host.

    Args:
        root: What becomes ``/opt/ml``.
        request: CreateTrainingJob's.
        host: Its name.
        groups: Names of all hosts by instance group.
        eth: The network interface between them.

    Raises:
        OSError: The disk is full.
    """
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    config = root / "input/config"
    _dump(config / "hyperparameters.json", request.get("HyperParameters", {}))
    _dump(config / "inputdataconfig.json", input_data(request, groups, host))
    _dump(config / "resourceconfig.json", resources(request, host, groups, eth))
    for member, name in _OBSERVED.items():
        if member in request:
            _dump(config / name, request[member])
    if definitions := request["AlgorithmSpecification"].get("MetricDefinitions"):
        _dump(config / "metric-definition-regex.json", definitions)
    _dump(config / "trainingjobconfig.json", request)


def input_data(
    request: Mapping[str, Any], groups: Mapping[str, list[str]], host: str
) -> dict[str, dict[str, str]]:
    """``inputdataconfig.json``; a FastFile channel shows up as File."""
    found = {}
    for channel in channels_of(request, groups, host):
        source = channel["DataSource"]["S3DataSource"]
        mode = mode_of(request, channel)
        entry = {"ContentType": channel["ContentType"]} if "ContentType" in channel else {}
        found[channel["ChannelName"]] = {
            **entry,
            "TrainingInputMode": "File" if mode == "FastFile" else mode,
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
    return found


def resources(
    request: Mapping[str, Any], host: str, groups: Mapping[str, list[str]], eth: str
) -> dict[str, Any]:
    """``resourceconfig.json``."""
    types = instance_types(request)
    mine = next(name for name, hosts in groups.items() if host in hosts)
    return {
        "current_host": host,
        "current_instance_type": types[mine],
        "current_group_name": mine,
        "hosts": sorted(one for hosts in groups.values() for one in hosts),
        "instance_groups": [
            {"instance_group_name": name, "instance_type": types[name], "hosts": hosts}
            for name, hosts in groups.items()
        ],
        "network_interface_name": eth,
    }


def instance_types(request: Mapping[str, Any]) -> dict[str, str]:
    """Types by instance group."""
    config = request["ResourceConfig"]
    if listed := config.get("InstanceGroups"):
        return {one["InstanceGroupName"]: one["InstanceType"] for one in listed}
    return {HOMOGENEOUS: config["InstanceType"]}


def instance_groups(request: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, list[str]]:
    """The hosts by instance group, in the order of the request."""
    config = request["ResourceConfig"]
    if not (listed := config.get("InstanceGroups")):
        return {HOMOGENEOUS: [*hosts]}
    groups, rest = {}, [*hosts]
    for one in listed:
        count = one["InstanceCount"]
        groups[one["InstanceGroupName"]], rest = rest[:count], rest[count:]
    return groups


def host_count(request: Mapping[str, Any]) -> int:
    """How many hosts a request asks for."""
    config = request["ResourceConfig"]
    if listed := config.get("InstanceGroups"):
        return sum(int(one["InstanceCount"]) for one in listed)
    return int(config.get("InstanceCount", 1))


def channels_of(
    request: Mapping[str, Any], groups: Mapping[str, list[str]], host: str
) -> list[dict[str, Any]]:
    """The channels that a host gets."""
    return [
        channel
        for channel in request.get("InputDataConfig", ())
        if host in _receivers(channel, groups)
    ]


def share(channel: Mapping[str, Any], groups: Mapping[str, list[str]], host: str) -> slice:
    """Which of a channel's objects, in the order of their keys, are a host's."""
    source = channel["DataSource"]["S3DataSource"]
    if source.get("S3DataDistributionType") != "ShardedByS3Key":
        return slice(None)
    hosts = sorted(_receivers(channel, groups))
    return slice(hosts.index(host), None, len(hosts))


def mode_of(request: Mapping[str, Any], channel: Mapping[str, Any]) -> str:
    """``File``, ``FastFile`` or ``Pipe``; a channel's own beats the job's."""
    mode: str = channel.get("InputMode") or request["AlgorithmSpecification"]["TrainingInputMode"]
    return mode


def _receivers(channel: Mapping[str, Any], groups: Mapping[str, list[str]]) -> list[str]:
    named = channel["DataSource"]["S3DataSource"].get("InstanceGroupNames")
    return [host for name, hosts in groups.items() if not named or name in named for host in hosts]


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")), "utf-8")
