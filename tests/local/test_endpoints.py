"""Endpoints: real `serve` processes, created, killed and deleted through boto3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.conftest import ROLE, eventually
from tests.local.hosted import IMAGE, Hosted, archive, files, one_and_two, processes

if TYPE_CHECKING:
    from tests.local.conftest import Endpoint

pytestmark = pytest.mark.slow
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def hosted(endpoint: Endpoint) -> Hosted:
    """Models ``one`` and ``two``, and a configuration of each."""
    return one_and_two(endpoint)


def test_an_endpoint_serves_from_its_first_ping_to_its_deletion(hosted):
    sagemaker = hosted.sagemaker
    arn = sagemaker.create_endpoint(EndpointName="Life", EndpointConfigName="one")["EndpointArn"]
    assert arn == f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/life"
    begun = sagemaker.describe_endpoint(EndpointName="Life")
    assert begun["EndpointStatus"] == "Creating"
    assert "ProductionVariants" not in begun
    told = hosted.error(hosted.ask, "Life")
    assert told["Code"] == "ValidationError"
    assert told["Message"] == f"Endpoint Life of account {ACCOUNT} not found."
    told = hosted.error(sagemaker.update_endpoint, EndpointName="Life", EndpointConfigName="two")
    assert told["Code"] == "ValidationException"
    assert told["Message"] == f'Cannot update in-progress endpoint "{arn}".'

    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName="Life", WaiterConfig={"Delay": 1, "MaxAttempts": 90}
    )
    (variant,) = sagemaker.describe_endpoint(EndpointName="Life")["ProductionVariants"]
    assert variant["VariantName"] == "one"
    assert variant["CurrentInstanceCount"] == variant["DesiredInstanceCount"] == 1
    assert variant["CurrentWeight"] == variant["DesiredWeight"] == 1.0
    assert variant["DeployedImages"][0]["SpecifiedImage"].endswith("/served:1")
    answer = hosted.ask("Life")
    assert answer["version"] == "one"
    assert answer["given"] == "to one"
    assert answer["region"] == "us-east-1"
    assert answer["mode"] == "0o40555"
    listed = sagemaker.list_endpoints(StatusEquals="InService", NameContains="Life")["Endpoints"]
    assert [one["EndpointName"] for one in listed] == ["Life"]
    told = hosted.error(sagemaker.create_endpoint, EndpointName="Life", EndpointConfigName="one")
    assert "already existing" in told["Message"]
    lines = eventually(lambda: hosted.log_lines("/aws/sagemaker/Endpoints/Life"))
    assert "runner process" in lines

    sagemaker.delete_endpoint(EndpointName="Life")
    sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName="Life", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    told = hosted.error(sagemaker.describe_endpoint, EndpointName="Life")
    assert told["Message"] == f'Could not find endpoint "{arn}".'
    assert processes(answer["root"]) == []
    told = hosted.error(hosted.ask, "Life")
    assert told["Message"] == f"Endpoint Life of account {ACCOUNT} not found."


def test_a_model_that_does_not_load_fails_the_endpoint_with_its_last_lines(hosted):
    hosted.model("broken", ModelDataUrl=hosted.put("b.tar.gz", archive(files("b", broken="x"))))
    hosted.config("broken", "broken")
    hosted.sagemaker.create_endpoint(EndpointName="broken", EndpointConfigName="broken")
    reason = hosted.settled("broken", "Failed")["FailureReason"]
    assert reason.startswith("Production variant broken: The container ended with exit code ")
    assert "these weights are broken" in reason
    told = hosted.error(
        hosted.sagemaker.update_endpoint, EndpointName="broken", EndpointConfigName="one"
    )
    assert told["Code"] == "ValidationException"
    hosted.sagemaker.delete_endpoint(EndpointName="broken")
    hosted.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName="broken", WaiterConfig={"Delay": 1, "MaxAttempts": 10}
    )


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"ModelDataUrl": "s3://models/none.tar.gz"}, "s3://models/none.tar.gz"),
        ({"ModelDataUrl": "s3://models/text.tar.gz"}, "no complete .tar.gz archive"),
        (
            {
                "ModelDataSource": {
                    "S3DataSource": {
                        "S3Uri": "s3://models/nothing/",
                        "S3DataType": "S3Prefix",
                        "CompressionType": "None",
                    }
                }
            },
            "there is no object below this prefix",
        ),
    ],
    ids=["missing", "no-archive", "empty-prefix"],
)
def test_model_data_that_cannot_be_had_fails_the_endpoint(hosted, request, container, words):
    name = f"data-{request.node.callspec.id}"
    hosted.put("text.tar.gz", "no archive")
    lost = ("none.tar.gz", "nothing/weights")
    for key in lost:
        hosted.put(key, "there while the model is made")
    hosted.model(name, **container)
    for key in lost:
        hosted.s3.delete_object(Bucket="models", Key=key)
    hosted.config(name, name)
    hosted.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert words in hosted.settled(name, "Failed")["FailureReason"]


def test_what_is_wrong_with_a_request_is_told_before_anything_starts(hosted):
    told = hosted.error(
        hosted.sagemaker.create_endpoint, EndpointName="x", EndpointConfigName="none"
    )
    assert told["Code"] == "ValidationException"
    assert told["Message"].startswith("Could not find endpoint configuration")
    for call in ("describe_endpoint", "delete_endpoint"):
        told = hosted.error(getattr(hosted.sagemaker, call), EndpointName="none")
        assert told["Message"].startswith("Could not find endpoint ")
    hosted.sagemaker.create_model(
        ModelName="package",
        PrimaryContainer={"ModelPackageName": "package"},
        ExecutionRoleArn=ROLE,
    )
    hosted.config("package", "package")
    told = hosted.error(
        hosted.sagemaker.create_endpoint, EndpointName="x", EndpointConfigName="package"
    )
    assert "has no Image" in told["Message"]


def test_files_below_a_prefix_are_a_model_too_and_instances_come_and_go(hosted):
    for name, content in files("files").items():
        hosted.put(f"files/{name}", content)
    hosted.model(
        "files",
        ModelDataSource={
            "S3DataSource": {
                "S3Uri": "s3://models/files/",
                "S3DataType": "S3Prefix",
                "CompressionType": "None",
            }
        },
    )
    hosted.config("files", "files")
    hosted.create("files", "files")
    answer = hosted.ask("files")
    assert answer["version"] == "files"
    assert answer["mode"] == "0o40555"
    cores = len(os.sched_getaffinity(0))
    for wanted in (2, 1):
        hosted.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="files",
            DesiredWeightsAndCapacities=[{"VariantName": "files", "DesiredInstanceCount": wanted}],
        )
        (variant,) = hosted.settled("files")["ProductionVariants"]
        assert variant["DesiredInstanceCount"] == wanted
        assert variant["CurrentInstanceCount"] == min(wanted, cores)
        assert hosted.ask("files")["version"] == "files"


@pytest.mark.parametrize("mode", ["Serial", "Direct"])
def test_a_pipeline_hands_answers_on_and_direct_containers_are_chosen(hosted, mode):
    hosted.sagemaker.create_model(
        ModelName=mode,
        Containers=[
            {
                "Image": IMAGE,
                "ContainerHostname": name,
                "ModelDataUrl": f"s3://models/{name}/model.tar.gz",
            }
            for name in ("one", "two")
        ],
        InferenceExecutionConfig={"Mode": mode},
        ExecutionRoleArn=ROLE,
    )
    hosted.config(mode, mode)
    description = hosted.create(mode, mode)
    assert len(description["ProductionVariants"][0]["DeployedImages"]) == 2
    if mode == "Serial":
        answer = hosted.ask(mode)
        assert answer["version"] == "two"
        assert int(answer["headers"]["content-length"]) > 100  # the first one's answer
        told = hosted.error(hosted.ask, mode, {"status": 400, "words": "first"})
        assert "first" in told["OriginalMessage"]
        told = hosted.error(hosted.ask, mode, TargetContainerHostname="one")
        assert told["Code"] == "ValidationError"
    else:
        for name in ("one", "two"):
            assert hosted.ask(mode, TargetContainerHostname=name)["version"] == name
        told = hosted.error(hosted.ask, mode)
        assert "must be one of: one, two" in told["Message"]
    hosted.sagemaker.delete_endpoint(EndpointName=mode)


def test_models_of_a_multi_model_endpoint_are_loaded_when_they_are_asked_for(hosted):
    for name in ("first", "second"):
        hosted.put(f"many/{name}.tar.gz", archive(files(name)))
    hosted.model("many", Mode="MultiModel", ModelDataUrl="s3://models/many/")
    hosted.config("many", "many")
    hosted.create("many", "many")
    for name in ("first", "second", "first"):
        assert hosted.ask("many", TargetModel=f"{name}.tar.gz")["version"] == name
    told = hosted.error(hosted.ask, "many", TargetModel="third.tar.gz")
    assert told["Code"] == "ValidationError"
    assert "third.tar.gz" in told["Message"]
    assert "needs a target model" in hosted.error(hosted.ask, "many")["Message"]


def test_a_killed_server_serves_again_after_its_start_and_leaves_no_process(own_endpoint):
    own_endpoint.start()
    hosted = Hosted(own_endpoint)
    hosted.model("one")
    hosted.config("one", "one")
    hosted.create("kept", "one")
    old = hosted.ask("kept")["root"]
    own_endpoint.kill()
    assert processes(old) != []
    own_endpoint.start()
    hosted = Hosted(own_endpoint)
    eventually(lambda: processes(old) == [])
    description: Any = hosted.settled("kept")
    assert description["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    answer = hosted.ask("kept")
    assert answer["version"] == "one"
    own_endpoint.stop()
    assert processes(own_endpoint.home) == []


def test_a_container_has_none_of_the_variables_that_the_server_was_started_with(own_endpoint):
    stale = {
        "AWS_SESSION_TOKEN": "another account's",
        "SAGEMAKER_PROGRAM": "another.py",
        "SM_MODEL_DIR": "/nowhere",
        "TRAINING_JOB_NAME": "another",
    }
    own_endpoint.environ.update(stale, KEPT="for proxies and the like")
    own_endpoint.start()
    served = Hosted(own_endpoint)
    served.model("own", Environment={"SM_LOG_LEVEL": "20"})
    served.config("own", "own")
    served.create("own", "own")
    (process, *_) = processes(served.ask("own")["root"])
    lines = Path(f"/proc/{process}/environ").read_text().split("\0")
    environ = dict(line.split("=", 1) for line in lines if line)
    assert stale.keys() & environ.keys() == set()
    assert environ["SM_LOG_LEVEL"] == "20"
    assert environ["KEPT"] == "for proxies and the like"
