"""SageMaker Runtime: invocations, whole, as a stream, and by way of S3."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from byoc.local import event_stream, service_model, validation
from byoc.local.application import read
from byoc.local.arns import ACCOUNT
from byoc.local.faults import AwsError
from byoc.local.hosting.invoke import Invocation, refused
from byoc.local.hosting.wire import ExchangeError, LateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from byoc.local.async_invocations import AsyncInvocations
    from byoc.local.endpoints import Endpoints
    from byoc.local.hosting.connections import Answer, Reply
    from byoc.local.hosting.fleet import Fleet
    from byoc.local.hosting.live import Live

#: Contract section 7.3.
MOST_BYTES, MOST_SERVERLESS_BYTES, MOST_ASYNC_BYTES = 25 * 2**20, 4 * 2**20, 128_000
INVOCATION_SECONDS, STREAM_SECONDS = 60.0, 480.0
#: The path's last part, the operation, and the bytes of its body.
_OPERATIONS = {
    "invocations": "InvokeEndpoint",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
    "async-invocations": "InvokeEndpointAsync",
}
#: The container's header, and the caller's.
_RETURNED = (
    ("x-amzn-sagemaker-custom-attributes", "X-Amzn-SageMaker-Custom-Attributes"),
    ("x-amzn-sagemaker-new-session-id", "X-Amzn-SageMaker-New-Session-Id"),
    ("x-amzn-sagemaker-closed-session-id", "X-Amzn-SageMaker-Closed-Session-Id"),
)


class SageMakerRuntime:
    """InvokeEndpoint, InvokeEndpointWithResponseStream, InvokeEndpointAsync.

    Args:
        endpoints: What answers.
        later: Invocations by way of S3.
        region: For log streams.
    """

    def __init__(self, endpoints: Endpoints, later: AsyncInvocations, region: str) -> None:
        self._endpoints, self._later, self._region = endpoints, later, region

    def __call__(self, environ: Any, start_response: Any, request_id: str) -> Iterable[bytes]:
        """Answer an invocation.

        Raises:
            AwsError: What the client is told.
        """
        name, _, last = environ["PATH_INFO"][len("/endpoints/") :].partition("/")
        operation = _OPERATIONS.get(last)
        if operation is None or environ["REQUEST_METHOD"] != "POST":
            raise AwsError(
                "UnknownOperationException", "No such operation of SageMaker Runtime.", 404
            )
        members = _members(environ, operation)
        if "InferenceComponentName" in members:
            raise refused("Inference components are not run locally.")
        if operation == "InvokeEndpointAsync":
            return self._invoke_async(name, members, environ, start_response, request_id)
        live = self._endpoints.live(name)
        fleet = None if live is None else live.lease()
        if live is None or fleet is None:
            raise self._not_serving(name)
        try:
            body = _body(environ, fleet)
            seconds = INVOCATION_SECONDS if last == "invocations" else STREAM_SECONDS
            invocation = Invocation(name, self._region, members, body, seconds)
            if last == "invocations":
                reply = invocation.ask(fleet)
                assert invocation.variant is not None  # noqa: S101 - it has answered
                _check_size(fleet, reply)
                headers = _answer_headers(reply, invocation.variant.name, request_id)
                start_response("200 OK", headers)
                return [reply.body]
            answer = invocation.open(fleet)
            assert invocation.variant is not None  # noqa: S101 - it has answered
            headers = _answer_headers(answer, invocation.variant.name, request_id)
            start_response("200 OK", headers)
            parts = _Parts(live, fleet, answer)
            fleet = None  # the parts give it back
            return parts
        finally:
            if fleet is not None:
                live.release(fleet)

    def _invoke_async(
        self,
        name: str,
        members: dict[str, Any],
        environ: Any,
        start_response: Any,
        request_id: str,
    ) -> Iterable[bytes]:
        body = read(environ, MOST_ASYNC_BYTES)
        live = self._endpoints.live(name)
        fleet = None if live is None else live.fleet
        if fleet is None:
            raise self._not_serving(name)
        if fleet.asynchronous is None:
            raise refused(f"Endpoint {name} has no AsyncInferenceConfig; use InvokeEndpoint.")
        accepted = self._later.accept(name, fleet, members, body)
        content = json.dumps({"InferenceId": accepted["InferenceId"]}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("x-amzn-RequestId", request_id),
            ("X-Amzn-SageMaker-OutputLocation", accepted["OutputLocation"]),
        ]
        if failure := accepted.get("FailureLocation"):
            headers.append(("X-Amzn-SageMaker-FailureLocation", failure))
        start_response("202 Accepted", headers)
        return [content]

    def _not_serving(self, name: str) -> AwsError:
        status = self._endpoints.status(name)
        if status in ("InService", "SystemUpdating", "Updating"):
            return AwsError("ServiceUnavailable", f"Endpoint {name} is being started again.", 503)
        return refused(f"Endpoint {name} of account {ACCOUNT} not found.")


class _Parts:
    """A streamed answer as events, for as long as somebody reads them."""

    def __init__(self, live: Live, fleet: Fleet, answer: Answer) -> None:
        self._live, self._fleet, self._answer = live, fleet, answer
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._answer.chunks():
                yield event_stream.part(chunk)
        except LateError:
            yield event_stream.failure(
                "ModelStreamError",
                Message=f"The model's stream took longer than {STREAM_SECONDS:g} seconds.",
                ErrorCode="ModelInvocationTimeExceeded",
            )
        except ExchangeError as error:
            yield event_stream.failure(
                "ModelStreamError", Message=f"The model's stream broke: {error}.",
                ErrorCode="StreamBroken",
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - the status has been sent
            yield event_stream.failure("InternalStreamFailure", Message=str(error))

    def close(self) -> None:
        """Called by the server at the end, whatever it was."""
        if not self._closed:
            self._closed = True
            self._answer.close()
            self._live.release(self._fleet)


@functools.cache
def _sources(operation: str) -> tuple[tuple[str, str, Any], ...]:
    """WSGI's variable, the member and its shape, for members that travel as headers."""
    found = service_model.operation(service_model.RUNTIME, operation)
    if found is None or found.input_shape is None:
        raise AwsError("UnknownOperationException", f"{operation} is not known to botocore.", 404)
    sources = []
    for name, shape in found.input_shape.members.items():
        if shape.serialization.get("location") == "header":
            header = shape.serialization["name"].upper().replace("-", "_")
            variable = header if header == "CONTENT_TYPE" else f"HTTP_{header}"
            sources.append((variable, name, shape))
    return tuple(sources)


def _members(environ: Mapping[str, str], operation: str) -> dict[str, Any]:
    """The request's members but for its body.

    Raises:
        AwsError: One does not meet the model's constraints.
    """
    members: dict[str, Any] = {}
    for variable, name, shape in _sources(operation):
        value: Any = environ.get(variable)
        if value:
            if shape.type_name == "integer":
                value = int(value) if value.isascii() and value.isdigit() else value
            try:
                members[name] = validation.parse(value, shape)
            except AwsError as error:
                path = name[0].lower() + name[1:]
                raise refused(error.message.replace(" at ''", f" at '{path}'", 1)) from None
    return members


def _body(environ: Any, fleet: Fleet) -> bytes:
    if fleet.asynchronous is not None:
        raise refused("The endpoint has an AsyncInferenceConfig; use InvokeEndpointAsync.")
    serverless = any(variant.serverless for variant in fleet.variants)
    return read(environ, MOST_SERVERLESS_BYTES if serverless else MOST_BYTES)


def _check_size(fleet: Fleet, reply: Reply) -> None:
    serverless = any(variant.serverless for variant in fleet.variants)
    most = MOST_SERVERLESS_BYTES if serverless else MOST_BYTES
    if len(reply.body) > most:
        raise refused(f"The model's response has {len(reply.body)} bytes; at most {most}.")


def _answer_headers(answer: Reply | Answer, variant: str, request_id: str) -> list[tuple[str, str]]:
    found = answer.headers
    kind = found.get("content-type", "application/octet-stream")
    headers = [("x-Amzn-Invoked-Production-Variant", variant), ("x-amzn-RequestId", request_id)]
    body = getattr(answer, "body", None)
    if body is None:
        headers.append(("Content-Type", event_stream.CONTENT_TYPE))
        headers.append(("X-Amzn-SageMaker-Content-Type", kind))
    else:
        headers.append(("Content-Type", kind))
        headers.append(("Content-Length", str(len(body))))
    headers += [(name, found[key]) for key, name in _RETURNED if key in found]
    return headers
