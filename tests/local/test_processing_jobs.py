"""Processing jobs through boto3, run by real processes with an `/opt/ml` of their own."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from byoc.local.host_processes import namespaces
from tests.local.conftest import ROLE, Endpoint, eventually

BUCKET = "processing-bucket"
NUMBERS = itertools.count(1)
INPUT, RESULT = "/opt/ml/processing/input", "/opt/ml/processing/result"
CODE = "/opt/ml/processing/code"
GROUP = "/aws/sagemaker/ProcessingJobs"

pytestmark = pytest.mark.skipif(
    not namespaces(), reason="/opt/ml in a namespace of its own needs root"
)


class Jobs:
    """Processing jobs of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.sagemaker, self.s3 = endpoint.client("sagemaker"), endpoint.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)

    def request(self, script: str, *arguments: str, **changes: Any) -> dict[str, Any]:
        """A job whose program comes from S3, as the SDK sends it."""
        name = f"job-{next(NUMBERS)}"
        self.put(**{f"code/{name}/main.py": script})
        code = given(f"code/{name}/main.py", CODE, "code")
        return {
            "ProcessingJobName": name,
            "RoleArn": ROLE,
            "AppSpecification": {
                "ImageUri": "mine:1",
                "ContainerEntrypoint": ["python3", "-u", f"{CODE}/main.py"],
                **({"ContainerArguments": [*arguments]} if arguments else {}),
            },
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 1,
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **changes,
            "ProcessingInputs": [code, *changes.get("ProcessingInputs", [])],
        }

    def start(self, script: str, *arguments: str, **changes: Any) -> str:
        request = self.request(script, *arguments, **changes)
        self.sagemaker.create_processing_job(**request)
        name: str = request["ProcessingJobName"]
        return name

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_processing_job(ProcessingJobName=name)
        return found

    def wait(self, name: str, status: str = "Completed") -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = self.describe(name)
            return None if found["ProcessingJobStatus"] in ("InProgress", "Stopping") else found

        found: dict[str, Any] = eventually(ended)
        assert found["ProcessingJobStatus"] == status, (found, self.log(name))
        return found

    def log(self, name: str, host: str = "algo-1") -> list[str]:
        logs = self.endpoint.client("logs")
        try:
            streams = logs.describe_log_streams(
                logGroupName=GROUP, logStreamNamePrefix=f"{name}/{host}"
            )["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            return []  # nothing has been said yet
        return [
            event["message"]
            for stream in streams
            for event in logs.get_log_events(
                logGroupName=GROUP, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]

    def put(self, **objects: str) -> None:
        for key, content in objects.items():
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=content.encode())

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [one["Key"].removeprefix(prefix) for one in found]


@pytest.fixture(scope="module")
def jobs(endpoint: Endpoint) -> Jobs:
    return Jobs(endpoint)


def given(prefix: str, path: str = INPUT, name: str = "in", **changes: Any) -> dict[str, Any]:
    source = {
        "S3Uri": f"s3://{BUCKET}/{prefix}",
        "LocalPath": path,
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        **changes,
    }
    return {"InputName": name, "S3Input": source}


def taken(prefix: str, mode: str = "EndOfJob", path: str = RESULT) -> dict[str, Any]:
    target = {"S3Uri": f"s3://{BUCKET}/{prefix}", "LocalPath": path, "S3UploadMode": mode}
    return {"Outputs": [{"OutputName": "out", "S3Output": target}]}


COPY = f"""
import os, pathlib, sys
print("arguments", sys.argv[1:], os.environ["MODE"], os.environ["AWS_REGION"])
for path in sorted(pathlib.Path("{INPUT}").rglob("*")):
    if path.is_file():
        (pathlib.Path("{RESULT}") / path.name).write_text(path.read_text().upper())
pathlib.Path("/opt/ml/output/message").write_text("all is well")
"""


def test_inputs_are_processed_and_outputs_stored(jobs):
    jobs.put(**{"raw/a": "one", "raw/deep/b": "two"})
    request = jobs.request(
        COPY,
        "--fast",
        "a b",
        ProcessingInputs=[given("raw")],
        ProcessingOutputConfig=taken("done/"),
        Environment={"MODE": "test"},
        Tags=[{"Key": "team", "Value": "a"}],
    )
    name = request["ProcessingJobName"]
    arn = jobs.sagemaker.create_processing_job(**request)["ProcessingJobArn"]
    jobs.sagemaker.get_waiter("processing_job_completed_or_stopped").wait(
        ProcessingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    found = jobs.wait(name)
    assert jobs.keys("done/") == ["a", "b"]
    body = jobs.s3.get_object(Bucket=BUCKET, Key="done/b")["Body"]
    assert body.read() == b"TWO"
    assert found["ExitMessage"] == "all is well"
    assert found["ProcessingJobArn"] == arn
    assert found["CreationTime"] <= found["ProcessingStartTime"] < found["ProcessingEndTime"]
    del request["Tags"]
    assert {key: found[key] for key in request} == request
    log = jobs.log(name)
    assert log[0].startswith("byoc: runner process: ")
    assert "arguments ['--fast', 'a b'] test us-east-1" in log
    summary = jobs.sagemaker.list_processing_jobs(NameContains=name)["ProcessingJobSummaries"][0]
    assert summary["ExitMessage"] == "all is well"


def test_the_configuration_is_the_request(jobs):
    script = "print(open('/opt/ml/config/' + __import__('sys').argv[1]).read())"
    name = jobs.start(script, "processingjobconfig.json", Environment={"A": "b"})
    arn = jobs.wait(name)["ProcessingJobArn"]
    config = json.loads(jobs.log(name)[1])
    assert config["ProcessingJobName"] == name
    assert config["ProcessingJobArn"] == arn
    assert config["Environment"] == {"A": "b"}
    assert config["AppSpecification"]["ImageUri"] == "mine:1"
    name = jobs.start(script, "resourceconfig.json")
    jobs.wait(name)
    assert jobs.log(name)[1] == (
        '{"current_host":"algo-1","current_instance_type":"ml.m5.large","hosts":["algo-1"],'
        '"network_interface_name":"lo"}'
    )


def test_a_program_that_fails_says_why(jobs):
    script = (
        f"open('{RESULT}/half', 'w').write('x')\n"
        "open('/opt/ml/output/message', 'w').write('no such column')\n"
        "raise SystemExit(5)"
    )
    name = jobs.start(script, ProcessingOutputConfig=taken("failed/"))
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"] == "AlgorithmError: no such column, exit code: 5"
    assert found["ExitMessage"] == "no such column"
    assert jobs.keys("failed/") == []
    found = jobs.wait(jobs.start("raise SystemExit(1)"), "Failed")
    assert found["FailureReason"].endswith("see the job's log for more information, exit code: 1")


def test_an_input_that_is_missing_fails_the_job(jobs):
    name = jobs.start("", ProcessingInputs=[given("nothing/here")])
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith("ClientError: Data download failed:No S3 objects")


def test_hosts_share_the_objects(jobs):
    jobs.put(**{f"shards/{n}": str(n) for n in range(3)})
    resources = {
        "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    }
    script = (
        "import json, os, pathlib\n"
        "host = json.load(open('/opt/ml/config/resourceconfig.json'))['current_host']\n"
        f"names = sorted(os.listdir('{INPUT}'))\n"
        f"pathlib.Path(f'{RESULT}/{{host}}').write_text(' '.join(names))\n"
    )
    name = jobs.start(
        script,
        ProcessingInputs=[given("shards/", S3DataDistributionType="ShardedByS3Key")],
        ProcessingOutputConfig=taken("shared"),
        ProcessingResources=resources,
    )
    jobs.wait(name)
    contents = [
        jobs.s3.get_object(Bucket=BUCKET, Key=f"shared/algo-{n}")["Body"].read() for n in (1, 2)
    ]
    assert contents == [b"0 2", b"1"]


WAITS = f"""
import pathlib, signal, sys, time
def stop(*_):
    print("saved", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("{RESULT}").mkdir(exist_ok=True)
pathlib.Path("{RESULT}/part").write_text("x")
print("ready")
time.sleep(100)
"""


def test_a_continuous_output_is_stored_while_the_job_runs_and_it_can_be_stopped(jobs):
    name = jobs.start(WAITS, ProcessingOutputConfig=taken("running/", "Continuous"))
    eventually(lambda: jobs.keys("running/") == ["part"])
    waiting = jobs.start("")
    eventually(lambda: "1 job is before" in jobs.describe(waiting).get("ExitMessage", ""))
    jobs.sagemaker.stop_processing_job(ProcessingJobName=waiting)
    stopped = jobs.describe(waiting)
    assert stopped["ProcessingJobStatus"] == "Stopped"
    assert "ExitMessage" not in stopped
    jobs.sagemaker.stop_processing_job(ProcessingJobName=name)
    jobs.wait(name, "Stopped")
    assert "saved" in jobs.log(name)
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="in status Stopped"):
        jobs.sagemaker.stop_processing_job(ProcessingJobName=name)


def test_the_time_limit_stops_a_job(jobs):
    found = jobs.wait(jobs.start(WAITS, StoppingCondition={"MaxRuntimeInSeconds": 1}), "Stopped")
    assert found["ExitMessage"] == "Processing job runtime exceeded MaxRuntimeInSeconds provided"


def test_without_an_entry_point_the_environment_has_nothing_to_run(jobs):
    name = jobs.start("", AppSpecification={"ImageUri": "mine:1"})
    found = jobs.wait(name, "Failed")
    assert "neither an entry point nor arguments are given" in found["FailureReason"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RoleArn": "nobody-is-this-long-enough"}, "roleArn"),
        ({"ProcessingInputs": [given("x", "/tmp/elsewhere")]}, "below /opt/ml/processing/"),
        ({"ProcessingInputs": [given("x", f"{INPUT}/../../x")]}, "below /opt/ml/processing/"),
        ({"ProcessingInputs": [given("x", S3InputMode="Pipe")]}, "File only"),
        ({"ProcessingInputs": [given("x"), given("y")]}, "must be unique"),
        ({"ProcessingInputs": [{"InputName": "x"}]}, "needs an S3Input"),
        ({"ProcessingOutputConfig": taken("x", path="/tmp/x")}, "below /opt/ml/processing/"),
        ({"ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1}}}, "InstanceType"),
    ],
)
def test_what_cannot_run_is_refused(jobs, changes, words):
    with pytest.raises(jobs.sagemaker.exceptions.ClientError) as caught:
        jobs.start("", **changes)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert words in error["Message"]


def test_names_are_unique_and_unknown_ones_are_told(jobs):
    request = jobs.request("")
    jobs.sagemaker.create_processing_job(**request)
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse):
        jobs.sagemaker.create_processing_job(**request)
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="Requested resource not found"):
        jobs.describe("nobody")
    jobs.wait(request["ProcessingJobName"])


def test_a_killed_endpoint_fails_what_ran(own_endpoint: Endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint)
    name = jobs.start(WAITS)
    eventually(lambda: "ready" in jobs.log(name))
    own_endpoint.kill()
    own_endpoint.start()
    jobs.sagemaker = own_endpoint.client("sagemaker")
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith("InternalServerError: the local endpoint ended")
