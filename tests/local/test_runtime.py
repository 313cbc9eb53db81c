"""SageMaker Runtime: invocations through boto3, answered by a real `serve`."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.conftest import eventually
from tests.local.hosted import BUCKET, Hosted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.local.conftest import Endpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hosted(endpoint: Endpoint) -> Hosted:
    """An endpoint ``real`` that answers at once and ``later`` that answers by way of S3."""
    made = Hosted(endpoint)
    made.model("one")
    made.config("real", "one")
    output = {"S3OutputPath": f"s3://{BUCKET}/out/", "S3FailurePath": f"s3://{BUCKET}/failed"}
    made.config(
        "later",
        "one",
        AsyncInferenceConfig={
            "OutputConfig": output,
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
        },
    )
    for name in ("real", "later"):
        made.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name in ("real", "later"):
        made.settled(name)
    return made


def test_headers_travel_to_the_container_and_back(hosted):
    answer = hosted.runtime.invoke_endpoint(
        EndpointName="real",
        Body=json.dumps({"attributes": "back"}),
        ContentType="application/json",
        Accept="application/json",
        CustomAttributes="there",
        InferenceId="id-1",
    )
    assert answer["ContentType"] == "application/json"
    assert answer["CustomAttributes"] == "back"
    assert answer["InvokedProductionVariant"] == "one"
    headers = json.loads(answer["Body"].read())["headers"]
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert headers["x-amzn-sagemaker-custom-attributes"] == "there"
    assert headers["x-amzn-sagemaker-inference-id"] == "id-1"
    assert not {"authorization", "x-amz-date", "user-agent"} & set(headers)


def test_custom_attributes_come_back_only_if_the_container_sets_them(hosted):
    answer = hosted.runtime.invoke_endpoint(
        EndpointName="real", Body=b"{}", ContentType="application/json", CustomAttributes="there"
    )
    assert "CustomAttributes" not in answer


def test_a_session_is_opened_and_closed(hosted):
    def ask(session: str, body: dict[str, str]) -> Any:
        return hosted.runtime.invoke_endpoint(
            EndpointName="real",
            Body=json.dumps(body),
            ContentType="application/json",
            SessionId=session,
        )

    opened = ask("NEW_SESSION", {})["NewSessionId"]
    identifier = opened.partition(";")[0]
    assert "Expires=" in opened
    assert "NewSessionId" not in ask(identifier, {})
    assert ask(identifier, {"requestType": "CLOSE"})["ClosedSessionId"] == identifier


@pytest.mark.parametrize(
    ("ask", "status", "words"),
    [
        ({"status": 400, "words": "no such digit"}, 400, "no such digit"),
        ({"status": 503, "words": "x" * 5000}, 503, "x" * 2000),
        ({"fail": "this model is sad"}, 500, "failed in predict_fn with RuntimeError"),
    ],
    ids=["client", "long", "exception"],
)
def test_what_the_container_refuses_is_a_model_error(hosted, ask, status, words):
    told = hosted.error(hosted.ask, "real", ask)
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert told["Code"] == "ModelError"
    assert told["OriginalStatusCode"] == status
    assert words in told["OriginalMessage"]
    assert len(told["OriginalMessage"]) <= 2048
    kind = "client" if status < 500 else "server"
    assert told["Message"].startswith(f"Received {kind} error ({status}) from primary with message")
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/real:log-stream:"
    assert told["LogStreamArn"].startswith(f"{arn}one/i-0")


@pytest.mark.parametrize(
    ("words", "told_words"),
    [
        ({"EndpointName": "none"}, "Endpoint none of account 123456789012 not found."),
        ({"TargetVariant": "none"}, "Variant none of endpoint real"),
        ({"TargetModel": "a.tar.gz"}, "not a multi-model endpoint"),
        ({"EndpointName": "later"}, "use InvokeEndpointAsync"),
        ({"CustomAttributes": "x" * 1025}, "at 'customAttributes' failed to satisfy constraint"),
        ({"InferenceId": "x" * 65}, "at 'inferenceId' failed to satisfy constraint"),
        ({"InferenceComponentName": "x"}, "not run locally"),
    ],
)
def test_a_wrong_request_is_a_validation_error(hosted, words, told_words):
    told = hosted.error(
        hosted.runtime.invoke_endpoint, **{"EndpointName": "real", "Body": b"{}", **words}
    )
    assert told["Code"] == "ValidationError"
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert told_words in told["Message"]


def test_a_body_of_25_mb_is_taken_and_a_longer_one_refused(hosted):
    most = 25 * 2**20
    answer = hosted.runtime.invoke_endpoint(
        EndpointName="real", Body=b"a" * most, ContentType="text/csv"
    )
    assert answer["Body"].read() == b"A" * most
    told = hosted.error(hosted.runtime.invoke_endpoint, EndpointName="real", Body=b"a" * (most + 1))
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert hosted.ask("real")["version"] == "one"


def test_any_http_client_may_ask_without_a_signature(hosted):
    connection = http.client.HTTPConnection(hosted.server.url.removeprefix("http://"), timeout=30)
    for body in (b"{}", [b"{", b"}"]):
        connection.request(
            "POST",
            "/endpoints/real/invocations",
            body,
            {"Content-Type": "application/json"},
            encode_chunked=isinstance(body, list),
        )
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["version"] == "one"
    connection.request("GET", "/endpoints/real/invocations")
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"UnknownOperation" in answer.read()
    connection.close()


def test_a_stream_comes_in_parts_while_the_model_makes_them(hosted, tmp_path: Path):
    gate = tmp_path / "gate"
    answer = hosted.runtime.invoke_endpoint_with_response_stream(
        EndpointName="real",
        Body=json.dumps({"stream": 3, "gate": str(gate)}),
        ContentType="application/json",
        Accept="text/plain",
    )
    assert answer["InvokedProductionVariant"] == "one"
    parts = (event["PayloadPart"]["Bytes"] for event in answer["Body"])
    seen = b""
    while b"part 2;" not in seen:
        seen += next(parts)
    assert not gate.exists()
    gate.touch()
    assert seen + b"".join(parts) == b"part 0;part 1;part 2;after the gate"


def test_a_stream_that_breaks_is_told_in_band(hosted):
    from botocore.exceptions import EventStreamError

    answer = hosted.runtime.invoke_endpoint_with_response_stream(
        EndpointName="real",
        Body=json.dumps({"stream": 2, "break": True}),
        ContentType="application/json",
    )
    seen = b""
    with pytest.raises(EventStreamError) as raised:  # noqa: PT012 - what came before counts
        for event in answer["Body"]:
            seen += event["PayloadPart"]["Bytes"]
    answer["Body"].close()
    assert b"part 1;" in seen
    assert raised.value.response["Error"]["Code"] == "ModelStreamError"


def test_a_stream_that_is_refused_is_a_model_error(hosted):
    told = hosted.error(
        hosted.runtime.invoke_endpoint_with_response_stream,
        EndpointName="real",
        Body=json.dumps({"status": 422, "words": "no"}),
        ContentType="application/json",
    )
    assert (told["Code"], told["OriginalStatusCode"]) == ("ModelError", 422)


def test_a_client_that_goes_away_leaves_nothing_behind(hosted, tmp_path: Path):
    answers = [
        hosted.runtime.invoke_endpoint_with_response_stream(
            EndpointName="real",
            Body=json.dumps({"stream": 1, "gate": str(tmp_path / f"gate-{number}")}),
            ContentType="application/json",
        )
        for number in range(5)
    ]
    for answer in answers:
        answer["Body"].close()
    for number in range(5):
        (tmp_path / f"gate-{number}").touch()
    assert hosted.ask("real")["version"] == "one"


def answered(hosted: Hosted, uri: str, seconds: float = 30) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")

    def found() -> list[bytes] | None:
        try:
            return [hosted.s3.get_object(Bucket=bucket, Key=key)["Body"].read()]
        except hosted.s3.exceptions.NoSuchKey:
            return None

    (content,) = eventually(found, seconds)
    return bytes(content)


def test_asynchronous_requests_are_answered_in_s3(hosted):
    uri = hosted.put("in/ask.json", json.dumps({"attributes": "x"}))
    answer = hosted.runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=uri, ContentType="application/json", InferenceId="mine"
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "mine"
    assert answer["OutputLocation"].startswith(f"s3://{BUCKET}/out/")
    assert json.loads(answered(hosted, answer["OutputLocation"]))["version"] == "one"


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"status": 400, "words": "no such digit"}', b"no such digit"), (None, b"NoSuchKey")],
    ids=["refused", "missing"],
)
def test_asynchronous_failures_are_told_in_s3(hosted, content, words):
    uri = f"s3://{BUCKET}/in/none.json"
    if content is not None:
        uri = hosted.put("in/wrong.json", content)
    answer = hosted.runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=uri, ContentType="application/json"
    )
    assert answer["FailureLocation"].startswith(f"s3://{BUCKET}/failed/")
    assert words in answered(hosted, answer["FailureLocation"])


def test_an_endpoint_without_an_async_configuration_refuses_asynchronous_requests(hosted):
    uri = hosted.put("in/ask.json", "{}")
    told = hosted.error(
        hosted.runtime.invoke_endpoint_async, EndpointName="real", InputLocation=uri
    )
    assert told["Code"] == "ValidationError"
    assert "AsyncInferenceConfig" in told["Message"]


def test_asynchronous_requests_wait_for_each_other_beyond_the_limit(hosted):
    uri = hosted.put("in/slow.json", json.dumps({"sleep": 0.5}))
    begun = time.monotonic()
    answers = [
        hosted.runtime.invoke_endpoint_async(
            EndpointName="later", InputLocation=uri, ContentType="application/json"
        )
        for _ in range(4)
    ]
    assert time.monotonic() - begun < 1
    for answer in answers:
        answered(hosted, answer["OutputLocation"])
    assert time.monotonic() - begun > 0.95  # two at a time


def test_requests_of_many_clients_at_once_are_all_answered(hosted):
    def ask(number: int) -> str:
        return str(hosted.ask("real", InferenceId=f"id-{number}")["headers"]
                   ["x-amzn-sagemaker-inference-id"])  # fmt: skip

    with ThreadPoolExecutor(32) as pool:
        assert [*pool.map(ask, range(200))] == [f"id-{number}" for number in range(200)]
