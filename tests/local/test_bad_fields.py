"""Requests with one wrong field each, sent as they are; and bodies of no sense at all.

boto3 would refuse most of them itself, so they go as JSON over HTTP.
"""

from __future__ import annotations

import copy
import http.client
import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from byoc.local import validation
from byoc.local.home import Home
from tests.local.conftest import ROLE, eventually
from tests.local.hosted import ACTIONS
from tests.local.model_cases import (
    CASES,
    MISSING,
    OPERATIONS,
    WHOLE,
    Place,
    changed,
    example,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local.conftest import Endpoint


@dataclass
class Raw:
    """HTTP to one server, with nothing between that would mend or refuse a request."""

    endpoint: Endpoint

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(self.endpoint.url).netloc, timeout=60)
        self.log = Home(self.endpoint.home).server_log

    def send(self, operation: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"SageMaker.{operation}",
        }
        self.connection.request("POST", "/", body, headers)
        answer = self.connection.getresponse()
        content: dict[str, Any] = json.loads(answer.read())
        return answer.status, content

    def ask(self, operation: str, request: Any) -> tuple[int, dict[str, Any]]:
        return self.send(operation, json.dumps(request).encode())

    def made(self, operation: str) -> list[str]:
        """What a Create operation has left behind."""
        listing, member = OPERATIONS[operation]
        status, content = self.ask(listing, {"MaxResults": 100})
        assert status == 200, content
        return sorted(
            value for one in content[member] for key, value in one.items() if key.endswith("Arn")
        )

    def faults(self) -> str:
        """The server's own log, where tracebacks would be."""
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture(scope="module")
def raw(endpoint: Endpoint) -> Iterator[Raw]:
    made, s3 = Raw(endpoint), endpoint.client("s3")
    bucket = BUCKET.removeprefix("s3://")
    s3.create_bucket(Bucket=bucket)
    for key in ("model.tar.gz", "data", "in"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"wrong")
    yield made
    made.connection.close()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_request_with_everything_fits_the_model(operation):
    """Else the cases would not be about their change."""
    assert validation.parse(WHOLE[operation], shape_of(operation)) == WHOLE[operation]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_wrong_field_is_named_and_leaves_nothing(raw, case):
    before, faults = raw.made(case.operation), raw.faults()
    status, answer = raw.ask(case.operation, case.request())
    assert (status, answer["__type"]) == (400, case.code), answer
    place = 0
    for words in case.words:
        place = answer["message"].find(words, place)
        assert place >= 0, (words, answer["message"])
    if case.code == "ValidationException":
        assert re.match(
            r"1 validation error detected: |\d+ validation errors detected: ", answer["message"]
        )
    assert raw.made(case.operation) == before
    assert raw.faults() == faults


#: Of objects that are there, and are neither an archive nor manifests.
BUCKET = "s3://wrong-data"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1}
CHANNEL = {
    "ChannelName": "training",
    "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": f"{BUCKET}/data"}},
}
VARIANT = {
    "VariantName": "one",
    "ModelName": "correct",
    "InstanceType": "ml.m5.large",
    "InitialInstanceCount": 1,
}
#: Right requests; what they need is made by `test_a_correct_request_still_works`.
CORRECT: dict[str, dict[str, Any]] = {
    "CreateModel": {
        "ModelName": "correct",
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": f"{BUCKET}/model.tar.gz"},
    },
    "CreateEndpointConfig": {"EndpointConfigName": "correct", "ProductionVariants": [VARIANT]},
    "CreateEndpoint": {"EndpointName": "correct", "EndpointConfigName": "correct"},
    "CreateTrainingJob": {
        "TrainingJobName": "correct",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "InputDataConfig": [CHANNEL],
        "OutputDataConfig": {"S3OutputPath": f"{BUCKET}/out"},
        "ResourceConfig": {**CLUSTER, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
    "CreateTransformJob": {
        "TransformJobName": "correct",
        "ModelName": "correct",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": f"{BUCKET}/in"}}
        },
        "TransformOutput": {"S3OutputPath": f"{BUCKET}/out"},
        "TransformResources": CLUSTER,
    },
    "CreateProcessingJob": {
        "ProcessingJobName": "correct",
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3"]},
        "ProcessingResources": {"ClusterConfig": {**CLUSTER, "VolumeSizeInGB": 1}},
        "ProcessingInputs": [
            {
                "InputName": "in",
                "S3Input": {
                    "S3Uri": f"{BUCKET}/in",
                    "LocalPath": "/opt/ml/processing/in",
                    "S3DataType": "ManifestFile",
                    "S3InputMode": "File",
                },
            }
        ],
    },
}
USER = "arn:aws:iam::123456789012:user/somebody"
#: The model allows both schemes; only one names objects.
NO_OBJECT = "https://example.com/key"
#: What fits the model and is wrong all the same: where, what, and words of the error.
#: More of a training job's is in test_training_jobs, of the other kinds in their own modules.
SENSELESS: list[tuple[str, Place, Any, str]] = [
    ("CreateTrainingJob", ("RoleArn",), USER, "at 'roleArn' failed to satisfy"),
    ("CreateTrainingJob", ("OutputDataConfig", "S3OutputPath"), NO_OBJECT,
     "at 'outputDataConfig.s3OutputPath' failed to satisfy"),
    ("CreateTrainingJob", ("InputDataConfig", 0, "DataSource", "S3DataSource", "S3Uri"), NO_OBJECT,
     "at 'inputDataConfig.1.member.dataSource.s3DataSource.s3Uri' failed to satisfy"),
    ("CreateTrainingJob", ("ResourceConfig", "InstanceCount"), 0, "at least one instance"),
    ("CreateModel", ("ExecutionRoleArn",), USER, "at 'executionRoleArn' failed to satisfy"),
    ("CreateModel", ("PrimaryContainer",), MISSING, "At least one container"),
    ("CreateModel", ("PrimaryContainer", "Image"), MISSING, "needs an Image"),
    ("CreateModel", ("PrimaryContainer", "ModelDataUrl"), "s3:///key",
     "at 'primaryContainer.modelDataUrl' failed to satisfy"),
    ("CreateModel", ("Containers",), [{"Image": IMAGE}], "Only one of"),
    ("CreateEndpointConfig", ("ProductionVariants",), [VARIANT, VARIANT], "must be unique"),
    ("CreateEndpointConfig", ("ProductionVariants", 0, "ModelName"), "nobody",
     'Could not find model "arn:'),
    ("CreateEndpointConfig", ("ProductionVariants", 0, "InstanceType"), MISSING,
     "needs an InstanceType"),
    ("CreateEndpointConfig", ("ProductionVariants", 0, "ServerlessConfig"),
     {"MemorySizeInMB": 2048, "MaxConcurrency": 1}, "has both"),
    ("CreateEndpoint", ("EndpointConfigName",), "nobody",
     'Could not find endpoint configuration "arn:'),
    ("CreateTransformJob", ("ModelName",), "nobody", 'Could not find model "arn:'),
    ("CreateTransformJob", ("TransformOutput", "S3OutputPath"), NO_OBJECT,
     "at 'transformOutput.s3OutputPath' failed to satisfy"),
    ("CreateTransformJob",
     ("TransformInput", "DataSource", "S3DataSource", "S3Uri"), NO_OBJECT,
     "at 'transformInput.dataSource.s3DataSource.s3Uri' failed to satisfy"),
    ("CreateProcessingJob", ("RoleArn",), USER, "at 'roleArn' failed to satisfy"),
    ("CreateProcessingJob", ("ProcessingInputs", 0, "S3Input", "S3Uri"), NO_OBJECT,
     "at 'processingInputs.1.member.s3Input.s3Uri' failed to satisfy"),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(raw: Raw) -> None:
    """What right requests name."""
    assert raw.ask("CreateModel", {**CORRECT["CreateModel"], "ModelName": "other"})[0] == 200


@pytest.mark.parametrize(("operation", "place", "value", "words"), SENSELESS)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    raw, model, operation, place, value, words
):
    request = json.loads(json.dumps(CORRECT[operation]).replace('"correct"', '"other"'))
    before = raw.made(operation)
    status, answer = raw.ask(operation, changed(request, place, value))
    assert (status, answer["__type"]) == (400, "ValidationException"), answer
    assert words in answer["message"]
    assert raw.made(operation) == before


@pytest.mark.parametrize("operation", CORRECT)
def test_a_correct_request_still_works(raw, operation):
    """After all these; in an order in which each finds what it names."""
    request = CORRECT[operation]
    status, answer = raw.ask(operation, request)
    assert status == 200, answer
    ((member, arn),) = answer.items()
    name = member.removesuffix("Arn")
    assert arn in raw.made(operation)
    status, described = raw.ask(f"Describe{name}", {f"{name}Name": "correct"})
    assert (status, described[member]) == (200, arn)
    if state := next((one for one in described if one == f"{name}Status"), None):
        # Its data are wrong, which ends it before anything has been started.
        found = eventually(
            lambda: (
                (one := raw.ask(f"Describe{name}", {f"{name}Name": "correct"})[1])[state]
                == "Failed"
                and one
            ),
            60,
        )
        assert BUCKET in found["FailureReason"]


def test_a_member_that_the_model_does_not_know_is_passed_over(raw):
    """As AWS does: clients may be newer. One that is misspelt is missed, if it is required."""
    request = {**CORRECT["CreateModel"], "ModelName": "unknown-member", "Picture": {"x": [1]}}
    request["PrimaryContainer"] = {**request["PrimaryContainer"], "Colour": "red"}
    assert raw.ask("CreateModel", request)[0] == 200
    _, described = raw.ask("DescribeModel", {"ModelName": "unknown-member"})
    assert "Picture" not in described
    assert "Colour" not in described["PrimaryContainer"]
    status, answer = raw.ask("CreateModel", {"modelName": "x", "ExecutionRoleArn": ROLE})
    assert status == 400
    assert "Value null at 'modelName' failed to satisfy" in answer["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe\x00",
        b'{"ModelName": NaN}',
        b'{"ModelName": Infinity}',
        b'{"MaxResults": 1e400}',
        b'{"MaxResults": ' + b"9" * 5000 + b"}",
        b'{"ModelName": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"CreationTimeAfter": 1e300}',
        b'{"CreationTimeAfter": "yesterday"}',
        b'{"CreationTimeAfter": "0001-01-01T00:00:00+14:00"}',
    ],
    ids=lambda body: body[:40].decode("ascii", "replace"),
)
def test_a_body_that_cannot_be_read_is_told(raw, body):
    faults = raw.faults()
    for operation in ("ListModels", "CreateModel"):
        status, answer = raw.send(operation, body)
        if status != 200:  # an operation that has no such member passes it over
            assert (status, answer["__type"]) in (
                (400, "SerializationException"),
                (400, "ValidationException"),
            ), answer
    assert raw.send("ListModels", body)[0] == 400
    assert raw.faults() == faults


#: Values that have broken programs before.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31 - 1, 2**31, 2**63, 10**400, -0.0, 1e-300, 1e308, "", " ",
    "null", "\x00", "\ud800", "ü" * 300, "x" * 70_000, "../../x", "s3://", "arn:aws:", "{}", "%s%n",
    [], [None], [[]], {}, {"": ""}, {"\ud800": None}, [{}], "1970-01-01", "9999-12-31T23:59:59Z",
)  # fmt: skip
SEED, BODIES = 20_260_101, 40


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """All of a request."""
    if place:
        yield place
    if isinstance(value, (dict, list)):
        for step, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(one, (*place, step))


def fuzzed(chance: random.Random, request: dict[str, Any]) -> bytes:
    """A request with a few members changed, taken away or put elsewhere, or bytes changed."""
    for _ in range(chance.randint(1, 3)):
        found = [*places(request)]
        if not found:
            break
        place = chance.choice(found)
        value: Any
        if chance.random() < 0.2:
            value = MISSING
        elif chance.random() < 0.3:
            value = request
            for step in chance.choice(found):
                value = value[step]
            value = copy.deepcopy(value)
        else:
            value = chance.choice(NASTY)
        request = changed(request, place, value)
    body = bytearray(json.dumps(request).encode())
    if chance.random() < 0.1:
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
    return bytes(body)


#: Changes that keep a right request from being run, in the check that comes last.
BLOCKED = {
    "CreateTrainingJob": (("InputDataConfig", 0, "CompressionType"), "Gzip"),
    "CreateEndpoint": (("EndpointConfigName",), "nobody"),
    "CreateTransformJob": (("MaxPayloadInMB",), 101),
    "CreateProcessingJob": (("ProcessingInputs", 0, "S3Input", "LocalPath"), "/elsewhere"),
}


def bases(operation: str) -> list[dict[str, Any]]:
    """What bodies are made of."""
    whole = example(shape_of(operation))
    if operation not in CORRECT:
        names = {name: "correct" for name in whole if name.endswith("Name")}
        return [whole, {**whole, **names}]
    return [whole, changed(CORRECT[operation], *BLOCKED[operation])
            if operation in BLOCKED else CORRECT[operation]]  # fmt: skip


@pytest.mark.parametrize("operation", ACTIONS)
def test_no_body_whatsoever_is_a_fault_of_ours(raw, operation):
    chance = random.Random(f"{SEED} {operation}")
    faults, found = raw.faults(), bases(operation)
    for _ in range(BODIES):
        body = fuzzed(chance, chance.choice(found))
        status, answer = raw.send(operation, body)
        assert status in (200, 400), (status, answer, body[:2000])
        assert status == 200 or answer["message"]
    # What was taken can be told as well.
    for listing, member in OPERATIONS.values():
        kind = listing.removeprefix("List").removesuffix("s")
        status, content = raw.ask(listing, {"MaxResults": 100})
        assert status == 200, content
        for one in content[member]:
            status, described = raw.ask(f"Describe{kind}", {f"{kind}Name": one[f"{kind}Name"]})
            assert status == 200, described
    assert raw.faults() == faults
