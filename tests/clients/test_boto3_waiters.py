"""Every waiter of boto3's that concerns the actions really waits, and ends."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.inside import processing, training, transform
from tests.local.hosted import ACTIONS, Hosted


def wait(
    hosted: Hosted,
    waiter: str,
    name: Mapping[str, str],
    then: Callable[[], Any] = lambda: None,
) -> list[str]:
    """Wait; the statuses that the waiter has seen. ``then`` is called after its first look."""
    seen: list[str] = []

    def look(parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if not model.name.startswith("Describe"):
            return  # what `then` calls
        found = [
            value for key, value in parsed.items() if key.endswith(("EndpointStatus", "JobStatus"))
        ]
        seen.extend(found or [parsed["Error"]["Code"]])
        if len(seen) == 1:
            then()

    events = hosted.sagemaker.meta.events
    events.register("after-call.sagemaker", look)
    try:
        hosted.sagemaker.get_waiter(waiter).wait(
            **name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
    finally:
        events.unregister("after-call.sagemaker", look)
    return seen


def program(tmp_path: Path, words: str) -> dict[str, str]:
    """Hyperparameters that have `train` run a program."""
    (tmp_path / "main.py").write_text(words)
    return {"sagemaker_program": "main.py", "sagemaker_submit_directory": str(tmp_path)}


def test_every_waiter_that_concerns_the_actions_is_tried_here():
    import botocore.session

    session = botocore.session.Session()
    waiters = session.get_waiter_model("sagemaker")
    asked = {name for name in waiters.waiter_names if waiters.get_waiter(name).operation in ACTIONS}
    assert asked == {
        "EndpointDeleted",
        "EndpointInService",
        "ProcessingJobCompletedOrStopped",
        "TrainingJobCompletedOrStopped",
        "TransformJobCompletedOrStopped",
    }


def test_waiters_of_endpoints_end_when_it_serves_and_when_it_is_gone(hosted):
    name = {"EndpointName": "waited"}
    hosted.sagemaker.create_endpoint(**name, EndpointConfigName="real")
    seen = wait(hosted, "endpoint_in_service", name)
    assert seen[0] == "Creating"
    assert seen[-1] == "InService"
    told = hosted.error(hosted.ask, "waited", {"status": 418, "words": "no"})
    assert (told["Code"], told["ResponseMetadata"]["HTTPStatusCode"]) == ("ModelError", 424)
    hosted.sagemaker.delete_endpoint(**name)
    seen = wait(hosted, "endpoint_deleted", name)
    assert seen[-1] == "ValidationException"
    assert set(seen[:-1]) <= {"Deleting"}


def test_a_waiter_for_a_training_job_waits_for_its_end(hosted, tmp_path):
    gate = tmp_path / "gate"
    words = (
        f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)"
    )
    hosted.s3.create_bucket(Bucket="models")
    request = training(
        "waited",
        HyperParameters=program(tmp_path, words),
        OutputDataConfig={"S3OutputPath": "s3://models/out"},
    )
    del request["InputDataConfig"]
    hosted.sagemaker.create_training_job(**request)
    name = {"TrainingJobName": "waited"}
    seen = wait(hosted, "training_job_completed_or_stopped", name, gate.touch)
    assert seen[0] == "InProgress"
    assert seen[-1] == "Completed"


def test_a_waiter_ends_when_a_job_is_stopped(hosted, tmp_path):
    """The transform and processing jobs wait behind a training job, and leave the queue."""
    hosted.s3.create_bucket(Bucket="models")
    request = training(
        "long",
        HyperParameters=program(tmp_path, "import time\ntime.sleep(600)"),
        OutputDataConfig={"S3OutputPath": "s3://models/out"},
    )
    del request["InputDataConfig"]
    client = hosted.sagemaker
    client.create_training_job(**request)
    client.create_processing_job(**processing("behind"))
    client.create_transform_job(**transform("behind", "real"))
    for kind, name in (("processing", "behind"), ("transform", "behind"), ("training", "long")):
        word = {f"{kind.title()}JobName": name}

        def stop(kind: str = kind, word: dict[str, str] = word) -> None:
            getattr(client, f"stop_{kind}_job")(**word)

        seen = wait(hosted, f"{kind}_job_completed_or_stopped", word, stop)
        assert seen[0] == "InProgress"
        assert seen[-1] == "Stopped"


def test_a_waiter_ends_when_a_transform_job_has_completed(hosted):
    uri = hosted.put("in/words.csv", "well")
    output = {"TransformOutput": {"S3OutputPath": "s3://models/out"}}
    hosted.sagemaker.create_transform_job(**transform("done", "real", uri, **output))
    seen = wait(hosted, "transform_job_completed_or_stopped", {"TransformJobName": "done"})
    assert seen[-1] == "Completed"


@pytest.mark.parametrize(
    ("waiter", "member"),
    [
        ("endpoint_in_service", "EndpointName"),
        ("training_job_completed_or_stopped", "TrainingJobName"),
        ("transform_job_completed_or_stopped", "TransformJobName"),
        ("processing_job_completed_or_stopped", "ProcessingJobName"),
    ],
)
def test_a_waiter_fails_when_what_it_waits_for_fails_or_is_not_there(hosted, waiter, member):
    from botocore.exceptions import WaiterError

    client = hosted.sagemaker
    if member == "EndpointName":
        hosted.model("failing")
        hosted.s3.delete_object(Bucket="models", Key="failing/model.tar.gz")
        hosted.config("failing", "failing")
        client.create_endpoint(EndpointName="failing", EndpointConfigName="failing")
    elif member == "TrainingJobName":
        client.create_training_job(**training("failing"))
    elif member == "TransformJobName":
        client.create_transform_job(**transform("failing", "real"))
    else:
        client.create_processing_job(**processing("failing"))
    with pytest.raises(WaiterError, match='we matched expected path: "Failed"') as raised:
        wait(hosted, waiter, {member: "failing"})
    last: Any = raised.value.last_response
    assert last["FailureReason"]
    with pytest.raises(WaiterError, match="ValidationException"):
        wait(hosted, waiter, {member: "nobody"})


#: By paginator: the kind in the store, the member that lists, and the states of what is there.
