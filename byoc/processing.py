"""Processing jobs: a program in an image, with folders from S3 and to S3."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import hosts, settings, uploads, words
from byoc.errors import SettingsError
from byoc.jobs import IMAGE, INSTANCE_TYPE
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from byoc.aws import Aws
    from byoc.report import Report

ROOT = "/opt/ml/processing"
CODE = f"{ROOT}/code"


@dataclass(frozen=True)
class Processing:
    """A processing job to be.

    Attributes:
        script: A Python program here, which is uploaded; None: the image's own entry point, or
            ``entrypoint``.
        arguments: Of the program.
        inputs: By name: a folder or file here, or ``s3://…``; seen in
            ``/opt/ml/processing/input/<name>``.
        outputs: By name: ``s3://…``, or nothing for a place in the bucket; taken from
            ``/opt/ml/processing/output/<name>``.
        entrypoint: A command, in words; exclusive with ``script``.
        name: Default: one that is not taken.
        image: A full name, or one in this account's registry.
        role: An ARN or a name; found when None.
        bucket: Found when None.
        instance_type: Such as ``ml.m5.xlarge``.
        instance_count: Hosts.
        volume_gb: The disk of each.
        max_seconds: The longest that it may run.
        environment: Variables of the container.
    """

    script: str | None = None
    arguments: Sequence[str] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    name: str | None = None
    image: str = IMAGE
    role: str | None = None
    bucket: str | None = None
    instance_type: str = INSTANCE_TYPE
    instance_count: int = 1
    volume_gb: int = 30
    max_seconds: int = 86400
    environment: Mapping[str, str] = field(default_factory=dict)


def process(
    aws: Aws,
    wish: Processing,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> dict[str, Any]:
    """Start a processing job; `jobs.wait` waits for it.

    Returns:
        The request of the job, as it was sent.

    Raises:
        SettingsError: Something is wrong or missing.
        ByocError: AWS refuses.
    """
    script, entrypoint = _check(wish)
    stem = script.stem if script else wish.image.rpartition("/")[2].partition(":")[0]
    name = words.checked_name(wish.name or words.fresh_name(stem))
    role = settings.role(aws, wish.role)
    specification: dict[str, Any] = {"ImageUri": aws.image_uri(wish.image)}
    bucket = ""
    here = [one for one in wish.inputs.values() if not one.startswith("s3://")]
    if script or here or "" in wish.outputs.values():
        bucket = settings.bucket(aws, wish.bucket, may_create=may_create, report=report)
    inputs = []
    for key, source in wish.inputs.items():
        uri = source
        if not source.startswith("s3://"):
            path = Path(source).expanduser()
            uri = uploads.upload(aws, path, bucket, "data", title=f"input {key}", report=report)
        inputs.append(_input(key, uri, f"{ROOT}/input/{key}"))
    if script:
        uri = uploads.upload(aws, script, bucket, "code", title=script.name, report=report)
        inputs.append(_input("code", uri, CODE))
        specification["ContainerEntrypoint"] = ["python3", f"{CODE}/{script.name}"]
    elif entrypoint:
        specification["ContainerEntrypoint"] = entrypoint
    if wish.arguments:
        specification["ContainerArguments"] = [*wish.arguments]
    request: dict[str, Any] = {
        "ProcessingJobName": name,
        "AppSpecification": specification,
        "RoleArn": role,
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": wish.instance_count,
                "InstanceType": wish.instance_type,
                "VolumeSizeInGB": wish.volume_gb,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": wish.max_seconds},
    }
    if inputs:
        request["ProcessingInputs"] = inputs
    if wish.outputs:
        usual = f"s3://{bucket}/{uploads.PREFIX}/processing/{name}"
        outputs = [_output(key, uri or f"{usual}/{key}") for key, uri in wish.outputs.items()]
        request["ProcessingOutputConfig"] = {"Outputs": outputs}
    if wish.environment:
        request["Environment"] = dict(wish.environment)
    aws.call("sagemaker", "CreateProcessingJob", request)
    return request


def _check(wish: Processing) -> tuple[Path | None, list[str]]:
    """The script, when there is one, and the words of the entry point, when there are any."""
    hosts.check(wish.instance_type, None)
    hosts.known(wish.instance_type, "processing")
    if wish.script and wish.entrypoint:
        raise SettingsError("give a SCRIPT or an --entrypoint, not both")
    for key, source in wish.inputs.items():
        words.checked_name(key)
        if not source.startswith("s3://"):
            uploads.files(Path(source).expanduser())
    for key, uri in wish.outputs.items():
        words.checked_name(key)
        if uri and not uri.startswith("s3://"):
            raise SettingsError(f"output {key} goes to {uri}; expected s3://…, or nothing")
    try:
        entrypoint = shlex.split(wish.entrypoint or "")
    except ValueError as error:
        raise SettingsError(
            f"--entrypoint {wish.entrypoint} is no command as a shell has it: {error}"
        ) from None
    if wish.script is None:
        return None, entrypoint
    script = Path(wish.script).expanduser()
    if not script.is_file():
        raise SettingsError(f"the program {script} is not there")
    return script, entrypoint


def _input(name: str, uri: str, path: str) -> dict[str, Any]:
    source = {
        "S3Uri": uri, "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
    }  # fmt: skip
    return {"InputName": name, "S3Input": source}


def _output(name: str, uri: str) -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": f"{ROOT}/output/{name}", "S3UploadMode": "EndOfJob"}
    return {"OutputName": name, "S3Output": target}
