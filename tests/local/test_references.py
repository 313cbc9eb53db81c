"""Requests that name an image or objects that are not there: refused at once, as AWS does."""

from __future__ import annotations

import subprocess
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import ROLE, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/byoc-no-such-image:1"


@pytest.fixture(scope="module")
def docker_endpoint(
    docker_cli: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """With the docker runner, whose images must be there."""
    made = Endpoint(tmp_path_factory.mktemp("docker"), runner="docker")
    made.start()
    yield made
    made.stop()


def source(uri: str, kind: str = "S3Prefix") -> dict[str, Any]:
    return {"S3DataSource": {"S3DataType": kind, "S3Uri": uri}}


def training(endpoint: Endpoint, image: str, *sources: dict[str, Any]) -> None:
    channels = [
        {"ChannelName": f"channel-{number}", "DataSource": one}
        for number, one in enumerate(sources)
    ]
    endpoint.client("sagemaker").create_training_job(
        TrainingJobName="refused",
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://references/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
        **({"InputDataConfig": channels} if channels else {}),
    )


def model(endpoint: Endpoint, image: str = IMAGE, **container: Any) -> None:
    endpoint.client("sagemaker").create_model(
        ModelName="refused", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image, **container}
    )


def processing(endpoint: Endpoint, image: str) -> None:
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    endpoint.client("sagemaker").create_processing_job(
        ProcessingJobName="refused",
        RoleArn=ROLE,
        AppSpecification={"ImageUri": image},
        ProcessingResources={"ClusterConfig": cluster},
    )


def told(call: Any, *arguments: Any, **members: Any) -> str:
    """What a refusal says."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **members)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    message: str = caught.value.response["Error"]["Message"]
    return message


@pytest.fixture(scope="module")
def stored(endpoint: Endpoint) -> Endpoint:
    """An endpoint with an object, one that was deleted, and one whose versions hide it."""
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket="references")
    for key in ("data/1", "deleted/1", "hidden/1"):
        if key == "hidden/1":
            on = {"Status": "Enabled"}
            s3.put_bucket_versioning(Bucket="references", VersioningConfiguration=on)
        s3.put_object(Bucket="references", Key=key, Body=b"1")
    s3.delete_object(Bucket="references", Key="hidden/1")
    s3.put_bucket_versioning(Bucket="references", VersioningConfiguration={"Status": "Suspended"})
    s3.delete_object(Bucket="references", Key="deleted/1")
    return endpoint


@pytest.mark.parametrize(
    ("bucket", "key", "kind"),
    [
        ("references", "nothing/", "S3Prefix"),
        ("references", "deleted/", "S3Prefix"),
        ("references", "hidden", "S3Prefix"),
        ("references", "data", "ManifestFile"),
        ("no-such-bucket", "", "S3Prefix"),
        ("no-such-bucket", "manifest", "ManifestFile"),
    ],
)
def test_jobs_without_data_are_refused(stored, bucket, key, kind):
    uri = f"s3://{bucket}/{key}"
    expected = (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that '
        f'the bucket "{bucket}" exists in the selected region (us-east-1)'
    )
    good = source("s3://references/data/1", "ManifestFile"), source("s3://references/da")
    assert told(training, stored, IMAGE, *good, source(uri, kind)).startswith(expected)

    sagemaker = stored.client("sagemaker")
    sagemaker.create_model(
        ModelName="transforms", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE}
    )
    message = told(
        sagemaker.create_transform_job,
        TransformJobName="refused",
        ModelName="transforms",
        TransformInput={"DataSource": source(uri, kind)},
        TransformOutput={"S3OutputPath": "s3://references/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    assert message.startswith(expected)
    sagemaker.delete_model(ModelName="transforms")
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    assert sagemaker.list_transform_jobs()["TransformJobSummaries"] == []


def data(uri: str, kind: str, compression: str = "None") -> dict[str, Any]:
    where = {"S3Uri": uri, "S3DataType": kind, "CompressionType": compression}
    return {"ModelDataSource": {"S3DataSource": where}} if kind else {"ModelDataUrl": uri}


@pytest.mark.parametrize(
    ("uri", "how"),
    [
        ("s3://references/data/2", ("",)),
        ("s3://references/data", ("",)),
        ("s3://no-such-bucket/model.tar.gz", ("",)),
        ("s3://references/nothing/", ("S3Prefix",)),
        ("s3://references/dat", ("S3Prefix",)),
        ("s3://references/data", ("S3Prefix", "Gzip")),
        ("s3://references/data/", ("S3Object",)),
    ],
)
def test_models_without_data_are_refused(stored, uri, how):
    expected = f"Could not find model data at {uri}."
    assert told(model, stored, **data(uri, *how)) == expected
    several = [{"Image": IMAGE, **data("s3://references/data", "S3Prefix")}]
    several.append({"Image": IMAGE, **data(uri, *how)})
    create = stored.client("sagemaker").create_model
    message = told(create, ModelName="refused", ExecutionRoleArn=ROLE, Containers=several)
    assert message == expected
    assert stored.client("sagemaker").list_models()["Models"] == []


def test_model_data_are_taken_from_s3_uris_only(stored):
    uri = "https://s3.amazonaws.com/references/data/1"
    message = told(model, stored, ModelDataUrl=uri)
    assert message.startswith(f"Locally, model data are taken from S3 URIs only: {uri} is no S3")


def test_a_name_that_is_taken_is_told_first(stored):
    model(stored)
    message = told(model, stored, ModelDataUrl="s3://references/nothing")
    assert "already existing" in message
    stored.client("sagemaker").delete_model(ModelName="refused")


def test_whether_an_engine_has_an_image_is_asked_when_one_answers(tmp_path, own_endpoint):
    own_endpoint.runner = "docker"
    own_endpoint.environ["DOCKER_HOST"] = f"unix://{tmp_path}/no-engine.sock"
    own_endpoint.start()
    model(own_endpoint)


def test_models_of_which_the_data_come_and_go_are_not_refused(stored):
    model(stored, Mode="MultiModel", ModelDataUrl="s3://references/nothing/")
    stored.client("sagemaker").delete_model(ModelName="refused")


def test_images_that_the_engine_does_not_have_are_refused(docker_endpoint):
    hint = f"the engine has no image {IMAGE} or byoc-no-such-image:1; build it (make build)"
    for call in (training, processing):
        message = told(call, docker_endpoint, IMAGE)
        assert message.startswith(f"Cannot find the requested image: {IMAGE}. Locally, {hint}")
    message = told(model, docker_endpoint)
    assert message.startswith(f"Requested image {IMAGE} not found. Locally, {hint}")
    for name in ("Not/An_Image", "a/../../containers/json", "../_ping"):
        message = told(model, docker_endpoint, name)
        assert message.startswith(f"Requested image {name} not found.")
    sagemaker = docker_endpoint.client("sagemaker")
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    assert sagemaker.list_processing_jobs()["ProcessingJobSummaries"] == []


@pytest.mark.parametrize("host", ["", "123456789012.dkr.ecr.us-east-1.amazonaws.com/"])
def test_an_image_that_the_engine_has_is_found_by_either_name(docker_endpoint, docker_cli, host):
    tar = subprocess.run(["tar", "c", "--files-from", "/dev/null"], stdout=PIPE, check=True).stdout
    name = "byoc-references:1"
    subprocess.run([docker_cli, "import", "-", name], input=tar, stdout=PIPE, check=True)
    try:
        model(docker_endpoint, f"{host}{name}")
    finally:
        subprocess.run([docker_cli, "rmi", name], stdout=PIPE, check=True)
    docker_endpoint.client("sagemaker").delete_model(ModelName="refused")
