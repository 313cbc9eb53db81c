"""Transform jobs: real `serve` processes over real objects."""

from __future__ import annotations

import gzip
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.conftest import eventually
from tests.local.hosted import BUCKET, Hosted, archive, files, processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local.conftest import Endpoint

pytestmark = pytest.mark.slow
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def hosted(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Hosted:
    made = Hosted(endpoint)
    flaky = tmp_path_factory.mktemp("flaky") / "once"
    made.model("upper", Environment={"FLAKY": str(flaky)})
    return made


def request(source: str, **more: Any) -> dict[str, Any]:
    """Of a job over ``s3://models/SOURCE`` into ``s3://models/out/JOB``."""
    name = f"job-{next(NUMBERS)}"
    given, output = more.pop("TransformInput", {}), more.pop("TransformOutput", {})
    return {
        "TransformJobName": name,
        "ModelName": "upper",
        "TransformInput": {
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{source}"}
            },
            "ContentType": "text/csv",
            "SplitType": "Line",
            **given,
        },
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/out/{name}", **output},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    }


@pytest.fixture
def run(hosted: Hosted) -> Callable[..., tuple[dict[str, Any], dict[str, bytes]]]:
    """Runs a job to its end: its description, and its objects by name."""

    def done(source: str, **more: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
        asked = request(source, **more)
        hosted.sagemaker.create_transform_job(**asked)
        name = asked["TransformJobName"]

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = hosted.sagemaker.describe_transform_job(TransformJobName=name)
            return None if found["TransformJobStatus"].endswith("ing") or found[
                "TransformJobStatus"
            ] == "InProgress" else found  # fmt: skip

        description = eventually(ended, 60)
        prefix = f"out/{name}/"
        listed = hosted.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return description, {
            one["Key"].removeprefix(prefix): hosted.s3.get_object(Bucket=BUCKET, Key=one["Key"])[
                "Body"
            ].read()
            for one in listed
        }

    return done


def test_each_object_below_the_prefix_becomes_an_object_with_its_key(hosted, run):
    hosted.put("set/a/x.csv", "one\ntwo\n")
    hosted.put("set/y.csv", "three\nfour")
    description, found = run("set")
    assert description["TransformJobStatus"] == "Completed"
    assert found == {"a/x.csv.out": b"ONE\nTWO\n", "y.csv.out": b"THREE\nFOUR"}
    assert (
        description["CreationTime"]
        <= description["TransformStartTime"]
        <= description["TransformEndTime"]
    )
    waiter = hosted.sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=description["TransformJobName"])
    listed = hosted.sagemaker.list_transform_jobs(
        NameContains=description["TransformJobName"], StatusEquals="Completed"
    )["TransformJobSummaries"]
    assert len(listed) == 1
    lines = hosted.log_lines("/aws/sagemaker/TransformJobs")
    assert "MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD" in lines
    assert processes(hosted.server.home / "work" / "transform") == []


def test_single_records_are_sent_one_by_one_and_assembled_as_lines_in_order(hosted, run):
    lines = [f"row-{number}" for number in range(50)]
    hosted.put("single.csv", "\n".join(lines))
    description, found = run(
        "single.csv",
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=8,
        MaxPayloadInMB=1,
        TransformOutput={"AssembleWith": "Line", "Accept": "text/csv"},
    )
    assert description["TransformJobStatus"] == "Completed"
    assert found["single.csv.out"].decode().split() == [line.upper() for line in lines]
    assert description["MaxConcurrentTransforms"] == 8
    assert "MaxConcurrentTransforms=8, MaxPayloadInMB=1, BatchStrategy=SINGLE_RECORD" in (
        hosted.log_lines("/aws/sagemaker/TransformJobs")
    )


def test_whole_objects_of_any_size_are_sent_with_a_limit_of_zero(hosted, run):
    hosted.put("whole/large.bin", b"a" * (8 * 2**20))
    hosted.put("whole/small.bin.gz", gzip.compress(b"small"))
    none = {"SplitType": "None"}
    description, found = run("whole/large.bin", TransformInput=none, MaxPayloadInMB=0)
    assert description["TransformJobStatus"] == "Completed"
    assert found["large.bin.out"] == b"A" * (8 * 2**20)
    description, found = run("whole/large.bin", TransformInput=none)
    assert description["TransformJobStatus"] == "Failed"
    assert "longer than MaxPayloadInMB, 6" in description["FailureReason"]
    assert found == {}
    zipped = {"SplitType": "None", "CompressionType": "Gzip"}
    _, found = run("whole/small.bin.gz", TransformInput=zipped, MaxPayloadInMB=0)
    assert found["small.bin.gz.out"] == b"SMALL"


def test_a_record_that_is_refused_fails_the_job_and_the_other_objects_are_there(hosted, run):
    hosted.put("mixed/bad.csv", "fine\nwrong\n")
    hosted.put("mixed/good.csv", "good\n")
    description, found = run("mixed", BatchStrategy="SingleRecord")
    assert description["TransformJobStatus"] == "Failed"
    assert description["FailureReason"].startswith("ClientError: models/mixed/bad.csv: 400: ")
    assert found == {"good.csv.out": b"GOOD\n"}


def test_a_request_that_fails_is_sent_again(hosted, run):
    hosted.put("flaky.csv", "flaky\n")
    description, found = run(
        "flaky.csv",
        ModelClientConfig={"InvocationsMaxRetries": 1, "InvocationsTimeoutInSeconds": 30},
    )
    assert description["TransformJobStatus"] == "Completed", description["FailureReason"]
    assert found == {"flaky.csv.out": b"FLAKY\n"}


def test_a_request_that_takes_too_long_fails_the_job(hosted, run):
    hosted.put("slow.csv", "slow\n")
    description, _ = run(
        "slow.csv",
        ModelClientConfig={"InvocationsMaxRetries": 0, "InvocationsTimeoutInSeconds": 1},
    )
    assert description["TransformJobStatus"] == "Failed"
    assert description["FailureReason"].startswith("AlgorithmError: models/slow.csv: no response")


def test_a_job_is_stopped(hosted):
    hosted.put("slow.csv", "slow\n")
    asked = request("slow.csv")
    name = asked["TransformJobName"]
    hosted.sagemaker.create_transform_job(**asked)
    waiting = request("slow.csv")
    hosted.sagemaker.create_transform_job(**waiting)

    def status(job: str) -> str:
        found = hosted.sagemaker.describe_transform_job(TransformJobName=job)
        return str(found["TransformJobStatus"])

    eventually(
        lambda: f"{name}/" in str(hosted.logs.describe_log_streams(
            logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix=name))
    )  # fmt: skip
    hosted.sagemaker.stop_transform_job(TransformJobName=waiting["TransformJobName"])
    eventually(lambda: status(waiting["TransformJobName"]) == "Stopped", 5)
    assert status(name) == "InProgress"
    hosted.sagemaker.stop_transform_job(TransformJobName=name)
    eventually(lambda: status(name) == "Stopped", 60)
    told = hosted.error(hosted.sagemaker.stop_transform_job, TransformJobName=name)
    assert told["Code"] == "ValidationException"
    assert "in status Stopped" in told["Message"]
    assert processes(hosted.server.home / "work" / "transform") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ModelName": "none"}, "Could not find model"),
        ({"TransformInput": {"SplitType": "RecordIO"}}, "RecordIO is not done locally"),
        ({"TransformInput": {"SplitType": "Tabs"}}, "failed to satisfy constraint"),
        ({"DataProcessing": {"OutputFilter": "$[1:]"}}, "OutputFilter $[1:] is not done locally"),
        ({"DataProcessing": {"JoinSource": "Input"}}, "JoinSource Input is not done locally"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "more than 100 MB"),
    ],
    ids=["model", "recordio", "split", "filter", "join", "payload"],
)
def test_a_wrong_request_is_refused(hosted, change, words):
    told = hosted.error(hosted.sagemaker.create_transform_job, **request("set", **change))
    assert told["Code"] == "ValidationException"
    assert words in told["Message"]


def test_a_broken_model_fails_the_job(hosted, run):
    hosted.model("broken", ModelDataUrl=hosted.put("b.tar.gz", archive(files("b", broken="x"))))
    hosted.put("set/y.csv", "three")
    description, _ = run("set", ModelName="broken")
    assert description["FailureReason"].startswith("AlgorithmError: The container ended with exit")
    assert "these weights are broken" in description["FailureReason"]


def test_a_killed_server_leaves_a_failed_job_and_no_process(own_endpoint, tmp_path: Path):
    own_endpoint.start()
    hosted = Hosted(own_endpoint)
    hosted.model("upper")
    hosted.put("slow.csv", "slow\n")
    asked = request("slow.csv")
    name = asked["TransformJobName"]
    hosted.sagemaker.create_transform_job(**asked)
    root = own_endpoint.home / "work" / "transform"
    eventually(lambda: processes(root))
    own_endpoint.kill()
    own_endpoint.start()
    hosted = Hosted(own_endpoint)
    eventually(
        lambda: (
            hosted.sagemaker.describe_transform_job(TransformJobName=name)["TransformJobStatus"]
            == "Failed"
        )
    )
    description = hosted.sagemaker.describe_transform_job(TransformJobName=name)
    assert "the local endpoint ended while the job ran" in description["FailureReason"]
    eventually(lambda: processes(root) == [])
