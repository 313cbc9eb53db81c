"""What CreateProcessingJob refuses although it fits the service model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc.local.faults import invalid, limit_exceeded
from byoc.local.models import check_role
from byoc.local.training_request import MOST_HOSTS, check_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.references import References

#: Where the platform wants inputs and outputs.
ROOT = "/opt/ml/processing"


def check(request: Mapping[str, Any]) -> None:
    """Refuse what SageMaker does not run, and what this machine cannot.

    Raises:
        AwsError: ``ValidationException``, or ``ResourceLimitExceeded`` for too many hosts.
    """
    check_role(request["RoleArn"], "roleArn")
    config = request["ProcessingResources"]["ClusterConfig"]
    if "InstanceType" not in config and not config.get("InstancePreferences"):
        raise invalid("ClusterConfig needs an InstanceType.")
    count = host_count(request)
    if count > MOST_HOSTS:
        raise limit_exceeded(
            f"The local limit for instances of a processing job is {MOST_HOSTS}, with a request "
            f"delta of {count} Instances."
        )
    inputs = request.get("ProcessingInputs", ())
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", ())
    for noun, names in (
        ("input", [one["InputName"] for one in inputs]),
        ("output", [one["OutputName"] for one in outputs]),
    ):
        if len(set(names)) != len(names):
            raise invalid(f"Names of {noun}s must be unique; they are {', '.join(names)}.")
    for number, one in enumerate(inputs, 1):
        _check_input(one, f"processingInputs.{number}.member")
    for number, one in enumerate(outputs, 1):
        _check_output(one, f"processingOutputConfig.outputs.{number}.member")


def look_up(request: Mapping[str, Any], references: References) -> None:
    """Refuse a checked request whose image is not there; inputs are looked for by the job.

    Raises:
        AwsError: ``ValidationException``.
    """
    references.check_image(request["AppSpecification"]["ImageUri"])


def host_count(request: Mapping[str, Any]) -> int:
    """How many hosts a request asks for."""
    config = request["ProcessingResources"]["ClusterConfig"]
    preferred = (config.get("InstancePreferences") or [{}])[0]
    return int(config.get("InstanceCount") or preferred.get("InstanceCount") or 1)


def instance_type(request: Mapping[str, Any]) -> str:
    """Of its hosts."""
    config = request["ProcessingResources"]["ClusterConfig"]
    kind: str = config.get("InstanceType") or config["InstancePreferences"][0]["InstanceType"]
    return kind


def _check_input(one: Mapping[str, Any], path: str) -> None:
    name, source = one["InputName"], one.get("S3Input")
    if source is None:
        raise invalid(f"The input {name} needs an S3Input; others do not run locally.")
    check_uri(source["S3Uri"], f"{path}.s3Input.s3Uri")
    if one.get("AppManaged"):
        return
    if source.get("S3InputMode", "File") != "File":
        raise invalid(f"The input {name} has the S3InputMode Pipe; locally there is File only.")
    if source.get("S3CompressionType", "None") != "None":
        raise invalid(f"The input {name} is compressed; that needs the S3InputMode Pipe.")
    _check_path(source.get("LocalPath"), f"input {name}")


def _check_output(one: Mapping[str, Any], path: str) -> None:
    name, target = one["OutputName"], one.get("S3Output")
    if one.get("AppManaged"):
        return
    if target is None:
        raise invalid(f"The output {name} needs an S3Output; others do not run locally.")
    check_uri(target["S3Uri"], f"{path}.s3Output.s3Uri")
    _check_path(target.get("LocalPath"), f"output {name}")


def _check_path(path: str | None, what: str) -> None:
    if path is None or not path.startswith(f"{ROOT}/") or ".." in path.split("/"):
        raise invalid(f"The LocalPath {path} of the {what} must be a path below {ROOT}/.")
