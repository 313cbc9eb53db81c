"""Every error that botocore documents for an action is provoked, or has a reason why not."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from byoc.local import endpoints, event_stream, service_model, transform_jobs
from tests.clients.inside import (
    CLUSTER,
    INVOCATIONS,
    Inside,
    processing,
    training,
    transform,
)
from tests.local import test_invoke
from tests.local.hosted import ACTIONS, IMAGE

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
    inside.model(name)
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
