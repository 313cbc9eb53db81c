"""Training requests that are refused, and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.jobs import (
    BUCKET,
    WAITS,
    channel,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.conftest import Endpoint


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a member, given by its path; None removes it."""
    *way, last = path.split(".")

    def change(request: dict[str, Any]) -> None:
        place: Any = request
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


BAD = {
    "RoleArn": ("role", "arn:aws"),
    "TrainingJobName": ("-bad", "trainingJobName"),
    "HyperParameters": ({"k": "x" * 2501}, "hyperParameters"),
    "Environment": ({"1": "x"}, "environment"),
    "AlgorithmSpecification.TrainingImage": (None, "Exactly one of TrainingImage"),
    "AlgorithmSpecification.AlgorithmName": ("x", "Exactly one of TrainingImage"),
    "AlgorithmSpecification.TrainingInputMode": ("Fast", "enum value set"),
    "AlgorithmSpecification.MetricDefinitions": ([{"Name": "a", "Regex": "("}], "is invalid"),
    "ResourceConfig": ({"VolumeSizeInGB": 1, "InstanceCount": 1}, "InstanceType"),
    "ResourceConfig.InstanceType": ("ml.nothing.large", "enum value set"),
    "ResourceConfig.InstanceCount": (-1, "greater than or equal to"),
    "OutputDataConfig.S3OutputPath": ("https://example.com/x", "outputDataConfig.s3OutputPath"),
    "StoppingCondition.MaxRuntimeInSeconds": (0, "greater than or equal to 1"),
    "StoppingCondition": (
        {"MaxRuntimeInSeconds": 28 * 24 * 3600 + 1},
        "maxRuntimeInSeconds' failed to satisfy constraint: Member must have value less than",
    ),
    "StoppingCondition.MaxWaitTimeInSeconds": (100, "managed spot"),
    "EnableManagedSpotTraining": (True, "MaxWaitTimeInSeconds"),
    "InputDataConfig.0.DataSource.S3DataSource.S3Uri": ("https://x/y", "s3Uri"),
    "InputDataConfig.0.DataSource.S3DataSource.S3DataType": ("Converse", "locally"),
    "InputDataConfig.0.DataSource.S3DataSource.InstanceGroupNames": (["g"], "unknown"),
    "InputDataConfig.0.DataSource": (
        {
            "FileSystemDataSource": {
                "FileSystemId": "fs-12345678901",
                "FileSystemAccessMode": "ro",
                "FileSystemType": "EFS",
                "DirectoryPath": "/x",
            }
        },
        "needs an S3DataSource",
    ),
    "InputDataConfig.0.ChannelName": ("a b", "channelName"),
    "InputDataConfig.1.ChannelName": ("training", "unique"),
    "InputDataConfig.0.CompressionType": ("Gzip", "needs the input mode Pipe"),
    "InputDataConfig.0.RecordWrapperType": ("RecordIO", "needs the input mode Pipe"),
    "CheckpointConfig": ({"S3Uri": f"s3://{BUCKET}/x", "LocalPath": "/opt/ml"}, "reserved"),
    "Tags": ([{"Key": "", "Value": "x"}], "tags"),
}


@pytest.mark.parametrize("path", BAD)
def test_a_wrong_field_is_refused(jobs, path):
    value, words = BAD[path]
    request = jobs.request(
        "", InputDataConfig=[channel(f"s3://{BUCKET}/x"), channel(f"s3://{BUCKET}/y", "other")]
    )
    changed(path, value)(request)
    client = jobs.sagemaker
    with pytest.raises(client.exceptions.ClientError) as caught:
        unchecked(jobs.endpoint).create_training_job(**request)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert words in error["Message"]


def unchecked(endpoint: Endpoint) -> Any:
    """A client that sends what it is given."""
    client = endpoint.client("sagemaker")
    client.meta.config.parameter_validation = False
    client._serializer = __import__("botocore.serialize", fromlist=["x"]).create_serializer(
        "json", include_validation=False
    )
    return client


@pytest.mark.parametrize(
    "member",
    [
        "TrainingJobName",
        "RoleArn",
        "AlgorithmSpecification",
        "OutputDataConfig",
        "ResourceConfig",
    ],
)
def test_a_missing_field_is_named(jobs, member):
    request = jobs.request("")
    del request[member]
    with pytest.raises(jobs.sagemaker.exceptions.ClientError) as caught:
        unchecked(jobs.endpoint).create_training_job(**request)
    small = member[0].lower() + member[1:]
    assert f"'{small}' failed to satisfy constraint: Member must not be null" in str(caught.value)


def test_names_are_unique_and_unknown_ones_are_told(jobs):
    request = jobs.request("")
    jobs.sagemaker.create_training_job(**request)
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse) as taken:
        jobs.sagemaker.create_training_job(**request)
    arn = jobs.describe(request["TrainingJobName"])["TrainingJobArn"]
    assert taken.value.response["Error"]["Message"] == (
        "Training job names must be unique within an AWS account and region, and a training job "
        f"with this name already exists ({arn})"
    )
    jobs.wait(request["TrainingJobName"], "Completed")
    for action in ("describe", "stop", "delete"):
        with pytest.raises(jobs.sagemaker.exceptions.ClientError) as caught:
            getattr(jobs.sagemaker, f"{action}_training_job")(TrainingJobName="nobody")
        assert caught.value.response["Error"]["Message"] == "Requested resource not found."


def test_a_job_that_has_ended_can_be_deleted(jobs):
    name = jobs.start(WAITS)
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse):
        jobs.sagemaker.delete_training_job(TrainingJobName=name)
    jobs.said(name, "ready")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    jobs.wait(name, "Stopped")
    jobs.sagemaker.delete_training_job(TrainingJobName=name)
    with pytest.raises(jobs.sagemaker.exceptions.ClientError):
        jobs.describe(name)
