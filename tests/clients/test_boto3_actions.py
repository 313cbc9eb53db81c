"""boto3 and botocore's own lists of SageMaker's actions, waiters, pages and errors, all of each.

What an action does is tested in tests/local. Here botocore's models say what there is to ask for,
so that an action, a waiter, a paginator or an error that nobody has thought of fails a test.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local import endpoints, event_stream, runtime, service_model, transform_jobs
from byoc.local.home import Home
from byoc.local.kinds import KINDS
from byoc.local.server import Server
from tests.local import test_invoke
from tests.local.conftest import REGION, ROLE, Endpoint
from tests.local.hosted import ACTIONS, IMAGE, Hosted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

INVOCATIONS = ("InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream")
OUTPUT = {"S3OutputPath": "s3://nowhere/out"}
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}


def training(name: str, **changes: Any) -> dict[str, Any]:
    """A job that fails at once, since its data are not there."""
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://nowhere/data"}
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "InputDataConfig": [
            {"ChannelName": "training", "DataSource": {"S3DataSource": source}},
        ],
        "OutputDataConfig": OUTPUT,
        "ResourceConfig": CLUSTER,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def processing(name: str, **changes: Any) -> dict[str, Any]:
    """A job that fails at once, since its data are not there."""
    given = {
        "S3Uri": "s3://nowhere/in",
        "LocalPath": "/opt/ml/processing/in",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    return {
        "ProcessingJobName": name,
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["true"]},
        "ProcessingResources": {"ClusterConfig": CLUSTER},
        "ProcessingInputs": [{"InputName": "in", "S3Input": given}],
        **changes,
    }


def transform(
    name: str, model: str, uri: str = "s3://nowhere/in", **changes: Any
) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri}
    return {
        "TransformJobName": name,
        "ModelName": model,
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": "text/csv",
        },
        "TransformOutput": OUTPUT,
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **changes,
    }


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """A server of its own, with an endpoint that is being created."""
    made = Endpoint(tmp_path_factory.mktemp("home"))
    made.start()
    found = Hosted(made)
    found.model("real")
    found.config("real", "real")
    yield found
    made.stop()


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A server in this process."""
    made = Inside(tmp_path_factory.mktemp("inside"))
    yield made
    made.close()


class Inside(Hosted):
    """A server in this process, over HTTP as any: its store can be filled, its limits lowered."""

    def __init__(self, home: Path) -> None:
        self.http = Server(Home(home), 0, REGION, "process")
        self.store = self.http._store
        threading.Thread(target=self.http._http.serve, daemon=True).start()
        super().__init__(Endpoint(home, url=self.http.url))

    def close(self) -> None:
        self.http._http.stop()
        for resource in self.http._resources:
            resource.close()
        self.store.close()

    def keep(self, kind: str, **document: Any) -> None:
        """Put a resource into the store, as if something had made it."""
        (found,) = [one for one in KINDS if one.store == kind]
        name = document[found.name]
        arn = f"arn:aws:sagemaker:{REGION}:123456789012:{found.arn}/{name}"
        self.store.create(kind, name, {found.arn_member: arn, **document})

    def serving(self, name: str) -> None:
        """An endpoint that says that it serves, without anything that does."""
        plan = {"VariantName": "one", "Weight": 1.0, "Count": 1}
        self.keep(
            "endpoint", EndpointName=name, EndpointStatus="InService", EndpointConfigName="all",
            Plans=[plan],
        )  # fmt: skip


# --- Actions ----------------------------------------------------------------------------------


def test_the_endpoint_has_exactly_the_actions_that_are_listed(inside):
    """All others of botocore's are told apart from what is no action at all."""
    import urllib.error
    import urllib.request

    def answers(action: str) -> str:
        target = {"X-Amz-Target": f"SageMaker.{action}"}
        request = urllib.request.Request(inside.server.url, b"[]", target)
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request)
        with raised.value as answer:
            return str(json.loads(answer.read())["__type"])

    names = service_model.service(service_model.SAGEMAKER).operation_names
    told = {name: answers(name) for name in names}
    assert set(told.values()) == {"UnknownOperationException", "SerializationException"}
    here = {name for name, code in told.items() if code == "SerializationException"}
    assert here == set(ACTIONS)
    assert len(ACTIONS) == len(set(ACTIONS)) == 31
    assert answers("CreateNothing") == "UnknownOperationException"
    runtime_names = service_model.service(service_model.RUNTIME).operation_names
    assert set(INVOCATIONS) <= set(runtime_names)
    assert len(INVOCATIONS) == len(runtime._OPERATIONS)
    assert set(runtime._OPERATIONS.values()) == set(INVOCATIONS)


# --- Waiters ----------------------------------------------------------------------------------


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
        hosted.model("failing", ModelDataUrl="s3://models/none.tar.gz")
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


# --- Pages ------------------------------------------------------------------------------------

#: By paginator: the kind in the store, the member that lists, and the states of what is there.
LISTS = {
    "list_training_jobs": ("training-job", "TrainingJobSummaries", ("Completed", "Failed")),
    "list_processing_jobs": ("processing-job", "ProcessingJobSummaries", ("Completed", "Failed")),
    "list_transform_jobs": ("transform-job", "TransformJobSummaries", ("Completed", "Stopped")),
    "list_endpoints": ("endpoint", "Endpoints", ("InService", "Failed")),
    "list_endpoint_configs": ("endpoint-config", "EndpointConfigs", ()),
    "list_models": ("model", "Models", ()),
}
COUNT = 23


@pytest.fixture(scope="module")
def filled(inside: Inside) -> Inside:
    """Resources of every kind, an order of names that is not that of their making."""
    for kind, _, states in LISTS.values():
        (words,) = [one for one in KINDS if one.store == kind]
        state = words.name.replace("Name", "Status")
        for number in range(COUNT):
            name = f"page-{(number * 7) % COUNT:02}-{'odd' if number % 2 else 'even'}"
            document = {words.name: name}
            if states:
                document[state] = states[number % 3 == 0]
            if kind == "training-job":
                document["SecondaryStatus"] = document[state]
            inside.keep(kind, **document)
    return inside


def test_every_list_is_paged_here():
    import botocore.session

    model: Any = botocore.session.Session().get_paginator_model("sagemaker")
    asked = {name for name in model._paginator_config if name in ACTIONS}
    lists = {"".join(part.title() for part in name.split("_")) for name in LISTS}
    assert asked == {*lists, "ListTags"}


@pytest.mark.parametrize("paginator", LISTS)
def test_a_list_is_paged_to_its_end_filtered_and_sorted(filled, paginator):
    kind, member, states = LISTS[paginator]
    (words,) = [one for one in KINDS if one.store == kind]
    made = [one for one in filled.store.all(kind) if one[words.name].startswith("page-")]
    client = filled.sagemaker

    def names(**filters: Any) -> list[str]:
        filters = {"NameContains": "page-", "MaxResults": 5, **filters}
        pages = [*client.get_paginator(paginator).paginate(**filters)]
        sizes = [len(page[member]) for page in pages]
        assert all(size == filters["MaxResults"] for size in sizes[:-1]), sizes
        assert [("NextToken" in page) for page in pages] == [True] * (len(pages) - 1) + [False]
        return [one[words.name] for page in pages for one in page[member]]

    by_time = [one[words.name] for one in made]
    by_name = sorted(by_time)
    assert len(by_time) == COUNT
    assert names() == by_time[::-1]  # the newest first
    assert names(SortBy="CreationTime", SortOrder="Ascending") == by_time
    assert names(SortBy="Name", SortOrder="Ascending") == by_name
    assert names(SortBy="Name", SortOrder="Descending", MaxResults=100) == by_name[::-1]
    assert names(NameContains="ODD", SortBy="Name", SortOrder="Ascending") == [
        name for name in by_name if name.endswith("odd")
    ]
    middle = made[COUNT // 2]["CreationTime"]
    after, before = names(CreationTimeAfter=middle), names(CreationTimeBefore=middle)
    # boto3 sends whole milliseconds, so what was made in the same one is on either side.
    assert set(by_time[COUNT // 2 + 3 :]) <= set(after)
    assert set(by_time[: COUNT // 2 - 3]) <= set(before)
    assert set(after) & set(before) <= set(by_time[COUNT // 2 - 3 : COUNT // 2 + 3])
    if states:
        state = words.name.replace("Name", "Status")
        for one in states:
            found = [document[words.name] for document in made if document[state] == one]
            assert names(StatusEquals=one) == found[::-1]
        by_state = names(SortBy="Status", SortOrder="Ascending")
        order = {document[words.name]: document[state] for document in made}
        assert [order[name] for name in by_state] == sorted(order.values())
    for wrong in ("x", "bm9uZQ==", json.dumps({})):
        told = filled.error(getattr(client, paginator), NextToken=wrong)
        assert told["Code"] == "ValidationException"


def test_tags_are_one_page_since_a_resource_has_at_most_fifty(inside):
    inside.keep("model", ModelName="tagged")
    arn = f"arn:aws:sagemaker:{REGION}:123456789012:model/tagged"
    tags = [{"Key": f"key-{number}", "Value": str(number)} for number in range(50)]
    inside.sagemaker.add_tags(ResourceArn=arn, Tags=tags)
    pages = [*inside.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn, MaxResults=50)]
    assert [page["Tags"] for page in pages] == [tags]
    told = inside.error(inside.sagemaker.list_tags, ResourceArn=arn, NextToken="x")
    assert told["Code"] == "ValidationException"
    more = {"Key": "one more", "Value": ""}
    told = inside.error(inside.sagemaker.add_tags, ResourceArn=arn, Tags=[more])
    assert told["Code"] == "ValidationException"


# --- Errors -----------------------------------------------------------------------------------

NOT_FOUND = "AWS says ValidationException here, which its own waiters expect: so do we"
NO_EXPERIMENTS = "would be for experiments and trials, which are not kept here"
NO_LIMIT = "a document: there is no limit of how many are kept here"
#: Documented errors that cannot occur here, with the reason.
CANNOT = {
    ("CreateTrainingJob", "ResourceNotFound"): NO_EXPERIMENTS,
    ("CreateProcessingJob", "ResourceNotFound"): NO_EXPERIMENTS,
    ("CreateTransformJob", "ResourceNotFound"): NO_EXPERIMENTS,
    **{
        (f"{verb}{kind}Job", "ResourceNotFound"): NOT_FOUND
        for verb in ("Describe", "Stop", "Delete")
        for kind in ("Training", "Processing", "Transform")
        if f"{verb}{kind}Job" in ACTIONS
    },
    ("CreateModel", "ResourceLimitExceeded"): NO_LIMIT,
    ("CreateEndpointConfig", "ResourceLimitExceeded"): NO_LIMIT,
    ("InvokeEndpoint", "InternalDependencyException"): "there is nothing that we depend on",
    ("InvokeEndpoint", "ModelNotReadyException"): (
        "a request waits for its model to be loaded; serverless variants start with the endpoint"
    ),
}


def broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("a fault of ours")


def taken(inside: Inside, action: str) -> None:
    """A name that is taken."""
    kind = action.removeprefix("Create").removesuffix("Job")
    name = f"taken-{kind.lower()}"
    inside.keep(f"{kind.lower()}-job", **{f"{kind}JobName": name})
    inside.keep("model", ModelName=name, PrimaryContainer={"Image": IMAGE})
    request = {"Training": training, "Processing": processing}.get(kind)
    asked = request(name) if request else transform(name, name)
    getattr(inside.sagemaker, f"create_{kind.lower()}_job")(**asked)


def running(inside: Inside, action: str) -> None:
    """One that has not ended cannot be deleted."""
    kind = action.removeprefix("Delete").removesuffix("Job")
    member = {f"{kind}JobName": "running"}
    state = {f"{kind}JobStatus": "InProgress"}
    inside.keep(f"{kind.lower()}-job", **member, **state)
    getattr(inside.sagemaker, f"delete_{kind.lower()}_job")(**member)


def too_many_hosts(inside: Inside, action: str) -> None:
    many = {**CLUSTER, "InstanceCount": 33}
    if action == "CreateTrainingJob":
        inside.sagemaker.create_training_job(**training("many", ResourceConfig=many))
    else:
        resources = {"ClusterConfig": many}
        request = processing("many", ProcessingResources=resources)
        inside.sagemaker.create_processing_job(**request)


def too_many_at_once(inside: Inside, action: str) -> None:
    """With limits of nought."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints, "MOST_AT_WORK", 0)
        patch.setattr(transform_jobs, "MOST_JOBS", 0)
        beyond_limits(inside, action, f"limit-{action.lower()}")


def beyond_limits(inside: Inside, action: str, name: str) -> None:
    inside.model(name, ModelDataUrl="s3://nowhere/model.tar.gz")
    if action == "CreateTransformJob":
        inside.sagemaker.create_transform_job(**transform(name, name))
        return
    inside.config(name, name)
    inside.serving(f"{name}-serves")
    if action == "CreateEndpoint":
        inside.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    elif action == "UpdateEndpoint":
        inside.sagemaker.update_endpoint(EndpointName=f"{name}-serves", EndpointConfigName=name)
    else:
        inside.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=f"{name}-serves",
            DesiredWeightsAndCapacities=[{"VariantName": "one", "DesiredInstanceCount": 2}],
        )


def invoke(inside: Inside, action: str, name: str) -> Any:
    if action == "InvokeEndpointAsync":
        return inside.runtime.invoke_endpoint_async(EndpointName=name, InputLocation="s3://a/b")
    call = {
        "InvokeEndpoint": inside.runtime.invoke_endpoint,
        "InvokeEndpointWithResponseStream": inside.runtime.invoke_endpoint_with_response_stream,
    }[action]
    return call(EndpointName=name, Body=b"{}")


def nobody_there(inside: Inside, action: str) -> None:
    invoke(inside, action, "nobody")


def nothing_serves(inside: Inside, action: str) -> None:
    """The endpoint is there, its containers are not."""
    inside.serving(f"idle-{action.lower()}")
    invoke(inside, action, f"idle-{action.lower()}")


def our_fault(inside: Inside, action: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints.Endpoints, "live", broken)
        invoke(inside, action, "any")


def answered(inside: Inside, action: str, answer: bytes) -> list[bytes]:
    """Invoke an endpoint whose container is a socket with a ready answer; the parts of a stream."""
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:

        def serve() -> None:
            channel, _ = server.accept()
            with channel:
                channel.recv(65536)
                channel.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        container = test_invoke.Container(server.getsockname())
        fleet: Any = test_invoke.Fleet(container)
        fleet.asynchronous, fleet.variants = None, (fleet.one,)
        live = SimpleNamespace(lease=lambda: fleet, release=lambda _: None)
        patch.setattr(endpoints.Endpoints, "live", lambda *_: live)
        try:
            body = invoke(inside, action, "any")["Body"]
            with contextlib.closing(body):
                return [event["PayloadPart"]["Bytes"] for event in body]
        finally:
            thread.join()
            container.connections.close()


def model_refuses(inside: Inside, action: str) -> None:
    answered(inside, action, b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno")


def stream_breaks(inside: Inside, action: str) -> None:
    answered(inside, action, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")


def stream_hits_our_fault(inside: Inside, action: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_stream, "part", broken)
        answered(inside, action, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npart")


#: What provokes each of the others.
PROVOKED: dict[tuple[str, str], Callable[[Inside, str], Any]] = {
    **{
        (f"Create{kind}Job", "ResourceInUse"): taken
        for kind in ("Training", "Processing", "Transform")
    },
    ("DeleteTrainingJob", "ResourceInUse"): running,
    ("DeleteProcessingJob", "ResourceInUse"): running,
    ("CreateTrainingJob", "ResourceLimitExceeded"): too_many_hosts,
    ("CreateProcessingJob", "ResourceLimitExceeded"): too_many_hosts,
    ("CreateTransformJob", "ResourceLimitExceeded"): too_many_at_once,
    ("CreateEndpoint", "ResourceLimitExceeded"): too_many_at_once,
    ("UpdateEndpoint", "ResourceLimitExceeded"): too_many_at_once,
    ("UpdateEndpointWeightsAndCapacities", "ResourceLimitExceeded"): too_many_at_once,
    **{(action, "ValidationError"): nobody_there for action in INVOCATIONS},
    **{(action, "ServiceUnavailable"): nothing_serves for action in INVOCATIONS},
    **{(action, "InternalFailure"): our_fault for action in INVOCATIONS},
    ("InvokeEndpoint", "ModelError"): model_refuses,
    ("InvokeEndpointWithResponseStream", "ModelError"): model_refuses,
    ("InvokeEndpointWithResponseStream", "ModelStreamError"): stream_breaks,
    ("InvokeEndpointWithResponseStream", "InternalStreamFailure"): stream_hits_our_fault,
}


def documented() -> dict[tuple[str, str], int]:
    """Every error of every action in botocore's models, with the status of its answer."""
    found = {}
    for service, actions in (
        (service_model.SAGEMAKER, ACTIONS),
        (service_model.RUNTIME, INVOCATIONS),
    ):
        for action in actions:
            operation = service_model.operation(service, action)
            assert operation is not None
            for shape in operation.error_shapes:
                status = shape.metadata.get("error", {}).get("httpStatusCode", 400)
                found[action, shape.name] = status
    return found


def test_every_documented_error_is_provoked_or_has_a_reason_why_not():
    assert set(PROVOKED) | set(CANNOT) == set(documented())
    assert not set(PROVOKED) & set(CANNOT)


@pytest.mark.parametrize(("action", "code"), PROVOKED)
def test_a_documented_error_is_told_with_its_code_and_status(inside, action, code):
    from botocore.exceptions import ClientError, EventStreamError

    with pytest.raises(ClientError) as raised:
        PROVOKED[action, code](inside, action)
    answer = raised.value.response
    assert answer["Error"]["Code"] == code
    assert answer["Error"]["Message"]
    if not isinstance(raised.value, EventStreamError):  # its status was sent before
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == documented()[action, code]
        client = inside.sagemaker if action in ACTIONS else inside.runtime
        assert isinstance(raised.value, getattr(client.exceptions, code))


@pytest.mark.parametrize(
    "action", [action for action, code in CANNOT if CANNOT[action, code] == NOT_FOUND]
)
def test_a_job_that_is_not_there_is_told_as_a_validation_error(inside, action):
    """Unlike what is documented; see `NOT_FOUND`."""
    verb = next(one for one in ("Describe", "Stop", "Delete") if action.startswith(one))
    kind = action.removeprefix(verb).removesuffix("Job")
    call = getattr(inside.sagemaker, f"{verb.lower()}_{kind.lower()}_job")
    told = inside.error(call, **{f"{kind}JobName": "nobody"})
    assert told["Code"] == "ValidationException"
    assert told["Message"] == "Requested resource not found."
