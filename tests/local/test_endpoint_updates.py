"""Endpoints that change while they serve: weights, updates, a killed container."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.local.conftest import eventually
from tests.local.hosted import Hosted, kill, one_and_two, processes

if TYPE_CHECKING:
    from tests.local.conftest import Endpoint

pytestmark = pytest.mark.slow
ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def hosted(endpoint: Endpoint) -> Hosted:
    """Models ``one`` and ``two``, and a configuration of each."""
    return one_and_two(endpoint)


@pytest.fixture(scope="module")
def pair(hosted: Hosted) -> str:
    """An endpoint with two variants; all requests go to the first."""
    hosted.config("pair", "one", "two", weights=(1, 0))
    hosted.create("pair", "pair")
    return "pair"


def test_weights_send_requests_to_variants_and_a_target_variant_overrules_them(hosted, pair):
    assert {hosted.ask(pair)["version"] for _ in range(20)} == {"one"}
    assert hosted.ask(pair, TargetVariant="two")["version"] == "two"
    told = hosted.error(hosted.ask, pair, TargetVariant="three")
    assert told["Code"] == "ValidationError"
    change = hosted.sagemaker.update_endpoint_weights_and_capacities
    change(
        EndpointName=pair,
        DesiredWeightsAndCapacities=[
            {"VariantName": "one", "DesiredWeight": 1},
            {"VariantName": "two", "DesiredWeight": 1},
        ],
    )
    variants = hosted.settled(pair)["ProductionVariants"]
    assert [one["CurrentWeight"] for one in variants] == [1.0, 1.0]
    seen = Counter(hosted.ask(pair)["version"] for _ in range(100))
    assert min(seen["one"], seen["two"]) > 20, seen
    told = hosted.error(
        change, EndpointName=pair, DesiredWeightsAndCapacities=[{"VariantName": "three"}]
    )
    assert "three" in told["Message"]


def test_a_killed_container_is_started_again_and_the_endpoint_stays_in_service(hosted, pair):
    root = hosted.ask(pair, TargetVariant="two")["root"]
    kill(root)
    told = hosted.error(hosted.ask, pair, TargetVariant="two")
    assert told["Code"] in ("ServiceUnavailable", "ModelError")
    assert hosted.sagemaker.describe_endpoint(EndpointName=pair)["EndpointStatus"] == "InService"
    assert hosted.ask(pair, TargetVariant="one")["version"] == "one"

    def again() -> bool:
        try:
            return bool(hosted.ask(pair, TargetVariant="two")["version"] == "two")
        except (hosted.runtime.exceptions.ServiceUnavailable, hosted.runtime.exceptions.ModelError):
            # Refused while it is down; a connection that still got through to it is broken.
            return False

    eventually(again, 60)
    group = f"/aws/sagemaker/Endpoints/{pair}"
    eventually(lambda: "the container serves again" in hosted.log_lines(group))


def test_two_hundred_concurrent_invocations_during_an_update_lose_none(hosted):
    hosted.create("updated", "one")
    root = hosted.ask("updated")["root"]
    seen: Counter[str] = Counter()
    lost: list[str] = []
    lock, done = threading.Lock(), threading.Event()
    address = hosted.server.url.removeprefix("http://")

    def load(_: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        while not done.is_set():
            try:
                connection.request(
                    "POST",
                    "/endpoints/updated/invocations",
                    b"{}",
                    {"Content-Type": "application/json"},
                )
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, (answer.status, body)
                word = json.loads(body)["version"]
            except (OSError, http.client.HTTPException, AssertionError) as error:
                with lock:
                    lost.append(repr(error))
            else:
                with lock:
                    seen[word] += 1
        connection.close()

    with ThreadPoolExecutor(200) as pool:
        running = [pool.submit(load, number) for number in range(200)]
        try:
            eventually(lambda: seen["one"] > 200, 60)
            hosted.sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="two")
            told = hosted.error(
                hosted.sagemaker.update_endpoint, EndpointName="updated", EndpointConfigName="two"
            )
            assert told["Message"].startswith("Cannot update in-progress endpoint")
            description = hosted.settled("updated")
            after = seen["two"]
            eventually(lambda: seen["two"] > after + 200, 60)
        finally:
            done.set()
        for one in running:
            one.result()
    assert lost == []
    assert description["EndpointConfigName"] == "two"
    assert description["ProductionVariants"][0]["VariantName"] == "two"
    assert hosted.ask("updated")["version"] == "two"
    assert processes(root) == []


def test_an_update_that_fails_is_rolled_back_while_the_old_containers_serve(hosted, pair):
    hosted.model("lost", ModelDataUrl=hosted.put("lost.tar.gz", "there while the model is made"))
    hosted.s3.delete_object(Bucket="models", Key="lost.tar.gz")
    hosted.config("lost", "lost")
    before = hosted.sagemaker.describe_endpoint(EndpointName=pair)["EndpointConfigName"]
    hosted.sagemaker.update_endpoint(EndpointName=pair, EndpointConfigName="lost")
    description = hosted.settled(pair)
    assert description["EndpointConfigName"] == before
    assert description["FailureReason"].startswith("The update was rolled back. Failed to download")
    assert hosted.ask(pair)["version"] in ("one", "two")


def test_data_capture_is_described_as_a_summary_and_the_log_says_that_there_is_none(hosted):
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": "s3://models/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    hosted.config("captured", "one", DataCaptureConfig=capture)
    hosted.config("not-captured", "one", DataCaptureConfig={**capture, "EnableCapture": False})
    description = hosted.create("captured", "captured")
    summary = {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 50,
        "DestinationS3Uri": "s3://models/captured",
        "KmsKeyId": "",
    }
    assert description["DataCaptureConfig"] == summary
    group = "/aws/sagemaker/Endpoints/captured"
    words = "byoc: DataCaptureConfig: locally nothing is captured"
    eventually(lambda: words in hosted.log_lines(group))

    update = hosted.sagemaker.update_endpoint
    update(EndpointName="captured", EndpointConfigName="one", RetainAllVariantProperties=True)
    assert hosted.settled("captured")["DataCaptureConfig"] == summary
    update(EndpointName="captured", EndpointConfigName="not-captured")
    stopped = {"EnableCapture": False, "CaptureStatus": "Stopped"}
    assert hosted.settled("captured")["DataCaptureConfig"] == {**summary, **stopped}
    update(EndpointName="captured", EndpointConfigName="one")
    assert "DataCaptureConfig" not in hosted.settled("captured")
    # Once for each generation of containers that would have captured.
    eventually(lambda: hosted.log_lines(group).count(words) == 2)
