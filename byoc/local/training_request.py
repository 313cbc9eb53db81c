"""What CreateTrainingJob refuses although it fits the service model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from byoc.local import training_files
from byoc.local.faults import invalid, limit_exceeded
from byoc.local.models import check_role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from byoc.local.references import References

#: More hosts than this would be a mistake on one machine.
MOST_HOSTS = 32
#: 28 days, which the service model does not say.
MOST_SECONDS = 2_419_200
_KINDS = ("S3Prefix", "ManifestFile", "AugmentedManifestFile")


def check(request: Mapping[str, Any]) -> None:
    """Refuse what SageMaker does not run, and what this machine cannot.

    Raises:
        AwsError: ``ValidationException``, or ``ResourceLimitExceeded`` for too many hosts.
    """
    check_role(request["RoleArn"], "roleArn")
    if "ServerlessJobConfig" in request:
        raise invalid("Serverless jobs do not run locally.")
    for member in ("AlgorithmSpecification", "ResourceConfig"):
        # Required of every other job, though not by the model.
        if member not in request:
            small = member[0].lower() + member[1:]
            raise invalid(
                f"1 validation error detected: Value null at '{small}' failed to satisfy "
                "constraint: Member must not be null"
            )
    _check_algorithm(request["AlgorithmSpecification"])
    _check_resources(request)
    _check_times(request)
    check_uri(request["OutputDataConfig"]["S3OutputPath"], "outputDataConfig.s3OutputPath")
    for member, key in (("CheckpointConfig", "S3Uri"), ("TensorBoardOutputConfig", "S3OutputPath")):
        if member in request:
            name = f"{member[0].lower()}{member[1:]}.{key[0].lower()}{key[1:]}"
            check_uri(request[member][key], name)
            _check_path(request[member].get("LocalPath"), member)
    channels = request.get("InputDataConfig", ())
    names = [channel["ChannelName"] for channel in channels]
    if len(set(names)) != len(names):
        raise invalid(f"Channel names must be unique; they are {', '.join(names)}.")
    groups = [
        one["InstanceGroupName"] for one in request["ResourceConfig"].get("InstanceGroups", ())
    ]
    for number, channel in enumerate(channels, 1):
        _check_source(channel, number, groups)
        _check_mode(channel, training_files.mode_of(request, channel))


def look_up(request: Mapping[str, Any], references: References) -> None:
    """Refuse a checked request whose image or data are not there.

    Raises:
        AwsError: ``ValidationException``.
    """
    references.check_image(request["AlgorithmSpecification"]["TrainingImage"])
    for channel in request.get("InputDataConfig", ()):
        references.check_source(channel["DataSource"]["S3DataSource"])


def check_uri(uri: str, member: str) -> None:
    """Refuse what is no S3 URI.

    Raises:
        AwsError: It is none.
    """
    if not re.fullmatch(r"s3://[^/]+(?:/.*)?", uri, re.DOTALL):
        raise invalid(
            f"1 validation error detected: Value '{uri}' at '{member}' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: s3://([^/]+)/?(.*)"
        )


def _check_algorithm(specification: Mapping[str, Any]) -> None:
    if ("TrainingImage" in specification) == ("AlgorithmName" in specification):
        raise invalid("Exactly one of TrainingImage and AlgorithmName must be specified.")
    if "AlgorithmName" in specification:
        raise invalid("AlgorithmName is not supported locally; give the TrainingImage.")
    for definition in specification.get("MetricDefinitions", ()):
        problem = _problem(definition["Regex"])
        if problem:
            raise invalid(f"The Regex of the metric {definition['Name']} is invalid: {problem}.")


def _problem(expression: str) -> str:
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        return str(error)
    return "" if groups else "it has no group for the value"


def _check_resources(request: Mapping[str, Any]) -> None:
    config = request["ResourceConfig"]
    groups = config.get("InstanceGroups", ())
    if groups and ("InstanceType" in config or "InstanceCount" in config):
        raise invalid("InstanceGroups cannot be given together with InstanceType or InstanceCount.")
    if not groups and "InstanceType" not in config:
        raise invalid("ResourceConfig needs an InstanceType or InstanceGroups.")
    names = [one["InstanceGroupName"] for one in groups]
    if len(set(names)) != len(names):
        raise invalid(f"Instance group names must be unique; they are {', '.join(names)}.")
    count = training_files.host_count(request)
    if count < 1:
        raise invalid("A training job needs at least one instance.")
    if count > MOST_HOSTS:
        raise limit_exceeded(
            f"The local limit for instances of a training job is {MOST_HOSTS}, with a request "
            f"delta of {count} Instances."
        )


def _check_times(request: Mapping[str, Any]) -> None:
    condition = request.get("StoppingCondition", {})
    runs, waits = condition.get("MaxRuntimeInSeconds"), condition.get("MaxWaitTimeInSeconds")
    if runs is not None and runs > MOST_SECONDS:
        raise invalid(
            f"1 validation error detected: Value '{runs}' at "
            "'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint: "
            f"Member must have value less than or equal to {MOST_SECONDS}"
        )
    if request.get("EnableManagedSpotTraining"):
        if waits is None:
            raise invalid("MaxWaitTimeInSeconds must be specified when managed spot is enabled.")
        if runs is not None and waits < runs:
            raise invalid("MaxWaitTimeInSeconds must not be less than MaxRuntimeInSeconds.")
    elif waits is not None:
        raise invalid("MaxWaitTimeInSeconds can be specified with managed spot training only.")


def _check_path(path: str | None, member: str) -> None:
    if path is not None and (not path.startswith("/") or ".." in path.split("/")):
        raise invalid(f"The LocalPath {path} of {member} must be an absolute path without '..'.")
    if path is not None and path.rstrip("/") in ("", "/opt", "/opt/ml"):
        raise invalid(f"The LocalPath {path} of {member} is reserved.")


def _check_source(channel: Mapping[str, Any], number: int, groups: Sequence[str]) -> None:
    name = channel["ChannelName"]
    if name in (".", ".."):
        raise invalid(f"A channel cannot be called {name}.")
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        raise invalid(f"The channel {name} needs an S3DataSource; others do not run locally.")
    check_uri(source["S3Uri"], f"inputDataConfig.{number}.member.dataSource.s3DataSource.s3Uri")
    kind = source["S3DataType"]
    if kind not in _KINDS:
        raise invalid(f"The S3DataType {kind} of the channel {name} does not run locally.")
    if kind == "AugmentedManifestFile" and not source.get("AttributeNames"):
        raise invalid(f"The channel {name} is an AugmentedManifestFile without AttributeNames.")
    for group in source.get("InstanceGroupNames", ()):
        if group not in groups:
            raise invalid(f"The channel {name} names the unknown instance group {group}.")


def _check_mode(channel: Mapping[str, Any], mode: str) -> None:
    name, kind = channel["ChannelName"], channel["DataSource"]["S3DataSource"]["S3DataType"]
    needs_pipe = {
        "is compressed": channel.get("CompressionType", "None") != "None",
        "has RecordIO": channel.get("RecordWrapperType", "None") != "None",
        "is an AugmentedManifestFile": kind == "AugmentedManifestFile",
    }
    for words, true in needs_pipe.items():
        if true and mode != "Pipe":
            raise invalid(f"The channel {name} {words}; that needs the input mode Pipe.")
    if mode == "FastFile" and kind != "S3Prefix":
        raise invalid(f"The channel {name} is FastFile; that needs the S3DataType S3Prefix.")
