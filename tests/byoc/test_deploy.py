"""``byoc deploy``, ``delete``, ``list``, ``describe``, ``stop``, ``logs``."""

from __future__ import annotations

import time
from typing import Any

import pytest

from byoc import image_facts
from byoc.aws import Aws
from byoc.endpoint_status import verify, wait
from byoc.errors import CombinationError, FailedError, NotFoundError, RequestError, SettingsError

ROLE = ("--role", "arn:aws:iam::111122223333:role/sm")
MODEL = ("--model-data", "s3://b/m.tar.gz")
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def labelled(cuda, driver, architecture="amd64", size=None):
    labels = {"sagemaker-byoc.cuda.version": cuda, "sagemaker-byoc.cuda.minimum-driver": driver}
    return image_facts.Facts("engine", labels, architecture, None, size)


@pytest.fixture
def cuda13(monkeypatch):
    monkeypatch.setattr(image_facts, "here", lambda _: labelled("13.0", "580"))


def test_dry_run_prints_model_configuration_and_endpoint(byoc, no_engine):
    model, config, endpoint = byoc.planned(
        "deploy", *MODEL, *ROLE, "--name", "digits", "-t", "ml.m5.large", "-n", "2", "-e", "A=b"
    )
    assert (model["operation"], config["operation"], endpoint["operation"]) == (
        "CreateModel", "CreateEndpointConfig", "CreateEndpoint",
    )  # fmt: skip
    name = model["request"]["ModelName"]
    assert model["request"] == {
        "ModelName": name,
        "ExecutionRoleArn": ROLE[1],
        "PrimaryContainer": {
            "Image": "<account>.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-byoc-inference:latest",
            "ModelDataUrl": "s3://b/m.tar.gz",
            "Environment": {"A": "b"},
        },
    }
    assert config["request"]["ProductionVariants"] == [
        {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 2,
            "InitialVariantWeight": 1.0,
        }
    ]
    assert endpoint["request"] == {
        "EndpointName": "digits",
        "EndpointConfigName": config["request"]["EndpointConfigName"],
    }


def test_the_ami_follows_the_image_s_label(byoc, cuda13):
    planned = byoc.planned("deploy", *MODEL, *ROLE, "-t", "ml.g5.xlarge")
    (variant,) = planned[1]["request"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"


def test_the_ami_follows_the_lane_in_the_tag_where_no_engine_has_the_image(byoc, no_engine):
    words = ("deploy", *MODEL, *ROLE, "-t", "ml.g5.xlarge", "--image")
    (variant,) = byoc.planned(*words, "x:1-cu130")[1]["request"]["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    (variant,) = byoc.planned(*words, "x:1")[1]["request"]["ProductionVariants"]
    assert "InferenceAmiVersion" not in variant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "ml.p3.2xlarge"), "no code for the GPUs"),
        (("-t", "ml.g5.xlarge", "--ami", "al2-ami-sagemaker-inference-gpu-3-1"), "needs 580"),
        (("-t", "ml.m6g.large"), "exec format error"),
    ],
)
def test_what_cannot_start_is_refused_before_any_call(byoc, cuda13, words, said, monkeypatch):
    # A closed port: any call would be another error.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    done = byoc("deploy", *MODEL, *ROLE, *words)
    assert done.code == CombinationError.exit_code
    assert said in done.err


def test_an_arm_image_is_refused(byoc, monkeypatch):
    monkeypatch.setattr(image_facts, "here", lambda _: labelled("12.8", "525", "arm64"))
    done = byoc("deploy", *MODEL, *ROLE, "--dry-run")
    assert done.code == CombinationError.exit_code
    assert "linux/arm64" in done.err


def test_serverless(byoc, no_engine):
    words = ("deploy", *MODEL, *ROLE, "--serverless", "--memory", "3072", "--concurrency", "9")
    (variant,) = byoc.planned(*words)[1]["request"]["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 9}
    assert "InstanceType" not in variant


def test_async(byoc, no_engine):
    words = (
        "deploy",
        *MODEL,
        *ROLE,
        "--async",
        "--bucket",
        "b",
        "--name",
        "e",
        "--concurrency",
        "3",
    )
    config = byoc.planned(*words)[1]["request"]["AsyncInferenceConfig"]
    assert config == {
        "OutputConfig": {
            "S3OutputPath": "s3://b/byoc/async/e",
            "S3FailurePath": "s3://b/byoc/async/e-failures",
        },
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 3},
    }


def test_variants(byoc, no_engine):
    planned = byoc.planned(
        "deploy", *ROLE, "--job", "j", "--variant", "old:model=m1,weight=9",
        "--variant", "new:instance-type=ml.m5.4xlarge,weight=1,instance-count=2",
    )  # fmt: skip
    assert [one["operation"] for one in planned] == [
        "DescribeTrainingJob", "CreateModel", "CreateEndpointConfig", "CreateEndpoint",
    ]  # fmt: skip
    old, new = planned[2]["request"]["ProductionVariants"]
    assert (old["ModelName"], old["InitialVariantWeight"]) == ("m1", 9.0)
    assert new["ModelName"] == planned[1]["request"]["ModelName"]
    assert (new["InstanceType"], new["InitialInstanceCount"]) == ("ml.m5.4xlarge", 2)


def test_update(byoc, no_engine):
    planned = byoc.planned("deploy", *MODEL, *ROLE, "--name", "digits", "--update")
    assert planned[-1]["operation"] == "UpdateEndpoint"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--job", "j", *MODEL), SettingsError.exit_code, "give one"),
        (("--model-data", "nowhere.tar.gz"), SettingsError.exit_code, "is not there"),
        (("--model-data", "s3://b/m.zip"), SettingsError.exit_code, "is no .tar.gz"),
        (("--model-data", "."), SettingsError.exit_code, "byoc package"),
        (("--update",), SettingsError.exit_code, "--name"),
        (("--serverless", "--memory", "1000"), SettingsError.exit_code, "1024"),
        (("--serverless", "--concurrency", "201"), SettingsError.exit_code, "1 to 200"),
        (("--serverless", "--async"), CombinationError.exit_code, "not both"),
        (
            ("--serverless", "--variant", "a", "--variant", "b"),
            CombinationError.exit_code,
            "one variant",
        ),
        (("--variant", "a", "--variant", "a"), SettingsError.exit_code, "two variants a"),
        (("--variant", "a:wieght=1"), SettingsError.exit_code, "means nothing"),
        (("--variant", "a:weight=x"), SettingsError.exit_code, "could not convert"),
        (("--variant", "a:weight=-1"), SettingsError.exit_code, "at least 0"),
        (("--variant", "a:weight=nan"), SettingsError.exit_code, "at least 0"),
        (("--variant", "a:weight=inf"), SettingsError.exit_code, "at least 0"),
        ((), SettingsError.exit_code, "has no model"),
        (("-e", "x"), SettingsError.exit_code, "such as SAGEMAKER_CONTAINER_LOG_LEVEL=10"),
        (("--async-output", "s3://b/x"), SettingsError.exit_code, "goes with --async"),
    ],
)
def test_contradictions_are_one_line(byoc, no_engine, words, code, said):
    done = byoc("deploy", *words, "--dry-run")
    assert done.code == code, done
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_an_image_of_the_user_s_own_may_have_its_model_in_it(byoc, no_engine):
    model = byoc.planned("deploy", *ROLE, "--image", "mine:1")[0]["request"]
    assert "ModelDataUrl" not in model["PrimaryContainer"]


def test_the_whole_life_of_an_endpoint(byoc, moto, aws, no_engine, tmp_path):
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(b"not looked at here")
    done = byoc("deploy", "--model-data", str(archive), "--name", "digits", "--json")
    assert done.code == 0, done.err
    assert done.json["EndpointStatus"] == "InService"
    assert "not verified" in done.err
    rows = byoc("list", "--json").json
    assert {(one["kind"], one["status"]) for one in rows} == {
        ("endpoint", "InService"), ("endpoint-config", ""), ("model", ""),
    }  # fmt: skip
    assert "endpoint  digits  InService" in byoc("list", "endpoints").out
    assert "EndpointStatus: InService" in byoc("describe", "digits", "--kind", "endpoint").out
    model = next(one["name"] for one in rows if one["kind"] == "model")
    described = aws.call("sagemaker", "DescribeModel", {"ModelName": model})
    assert described["PrimaryContainer"]["ModelDataUrl"].endswith("/model.tar.gz")
    refused = byoc("delete", "digits")
    assert refused.code == SettingsError.exit_code
    assert "--yes" in refused.err
    gone = byoc("delete", "digits", "--yes")
    assert gone.code == 0, gone.err
    assert byoc("list", "--json").json == []
    assert byoc("delete", "digits", "--yes").code == NotFoundError.exit_code
    assert byoc("delete", "digits", "--yes", "--missing-ok").code == 0


def test_what_was_made_is_taken_back_when_the_endpoint_is_refused(
    byoc, moto, aws, no_engine, monkeypatch
):
    def call(self, service, operation, request=None) -> Any:
        if operation == "CreateEndpoint":
            raise RequestError('Cannot create already existing endpoint "digits".')
        return through(self, service, operation, request)

    through = Aws.call
    monkeypatch.setattr(Aws, "call", call)
    done = byoc("deploy", *MODEL, "--name", "digits")
    assert done.code == RequestError.exit_code
    assert "--update" in done.err
    assert byoc("list", "--json").json == []


@pytest.mark.parametrize("operation", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
@pytest.mark.parametrize("done_there", [False, True])
def test_what_was_made_is_taken_back_when_ctrl_c_comes(
    byoc, moto, aws, no_engine, monkeypatch, operation, done_there
):
    def call(self, service, name, request=None) -> Any:
        if name == operation:
            if done_there:  # and the answer is still on its way
                through(self, service, name, request)
            raise KeyboardInterrupt
        return through(self, service, name, request)

    through = Aws.call
    monkeypatch.setattr(Aws, "call", call)
    done = byoc("deploy", *MODEL, *ROLE, "--name", "digits")
    assert done.code == 130
    assert done.err.strip() == "byoc: interrupted"
    assert byoc("list", "--json").json == []


def test_ctrl_c_leaves_an_endpoint_alone_that_was_there_and_what_an_update_may_use(
    byoc, moto, aws, no_engine, monkeypatch
):
    def call(self, service, name, request=None) -> Any:
        if name in ("CreateEndpoint", "UpdateEndpoint"):
            raise KeyboardInterrupt
        return through(self, service, name, request)

    assert byoc("deploy", *MODEL, *ROLE, "--name", "digits").code == 0
    before = byoc("list", "--json").json
    through = Aws.call
    monkeypatch.setattr(Aws, "call", call)
    assert byoc("deploy", *MODEL, *ROLE, "--name", "digits").code == 130
    assert byoc("list", "--json").json == before
    assert byoc("deploy", *MODEL, *ROLE, "--name", "digits", "--update").code == 130
    assert len(byoc("list", "--json").json) == len(before) + 2


def test_a_job_without_a_model_is_refused(byoc, moto, aws, no_engine):
    assert byoc("deploy", "--job", "none").code == NotFoundError.exit_code


class Deployed:
    """An endpoint that goes through some states."""

    local, dry_run = True, False

    def __init__(self, *states: Any) -> None:
        self.states = list(states)

    def ask(self, service, operation, request):
        return dict(self.states.pop(0) if len(self.states) > 1 else self.states[0])

    def pages(self, *_: Any):
        return iter(())


def deployed(*states: Any) -> Any:
    return Deployed(*states)


def test_an_endpoint_that_fails_is_an_error_with_its_reason(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    failing = deployed(
        {"EndpointStatus": "Creating"},
        {"EndpointStatus": "Failed", "FailureReason": "did not pass the ping"},
    )
    with pytest.raises(
        FailedError,
        match=r"did not pass the ping; its log: byoc logs e --kind endpoint; .* delete e",
    ):
        wait(failing, "e")


def test_an_update_that_was_taken_back_is_an_error(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    old, new = {"EndpointConfigName": "old"}, {"EndpointConfigName": "new"}
    serving = {"EndpointStatus": "InService"}
    updating = {"EndpointStatus": "Updating", **old}
    back = {**serving, **old, "FailureReason": "no capacity"}
    with pytest.raises(FailedError, match="no capacity; it serves as before"):
        wait(deployed({**serving, **old}, updating, back), "e", config="new")
    done = wait(deployed({**serving, **old}, updating, {**serving, **new}), "e", config="new")
    assert done["EndpointConfigName"] == "new"


def running(digest):
    images = [{"SpecifiedImage": "r/i:latest", "ResolvedImage": f"r/i@{digest}"}]
    return {"ProductionVariants": [{"VariantName": "a", "DeployedImages": images}]}


def test_the_image_that_runs_is_compared_with_the_one_asked_for():
    images = {"a": DIGEST}
    assert verify(images, running(DIGEST)) == [f"image of a verified: {DIGEST}"]
    with pytest.raises(FailedError, match="tag was moved"):
        verify(images, running(OTHER))
    (line,) = verify({}, running(DIGEST))
    assert "not verified" in line


def test_logs_are_printed_in_order_with_the_stream_where_there_are_several(byoc, moto, aws):
    assert byoc("train", "--name", "one").code == 0
    logs = aws.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    assert "has written nothing" in byoc("logs", "one").err
    logs.create_log_group(logGroupName=group)
    now = int(time.time() * 1000)
    for host in (1, 2):
        stream = f"one/algo-{host}-1700000000"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        events = [
            {"timestamp": now + 10 * n + host, "message": f"line {n} of {host}"} for n in range(3)
        ]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    logs.create_log_stream(logGroupName=group, logStreamName="onemore/algo-1-1")
    out = byoc("logs", "one").out.splitlines()
    assert out == [f"algo-{host}  line {n} of {host}" for n in range(3) for host in (1, 2)]
    assert byoc("logs", "one", "-n", "1").out == "algo-2  line 2 of 2\n"
    assert byoc("logs", "nobody").code == NotFoundError.exit_code


def test_a_name_that_several_kinds_have_is_the_first_and_the_others_are_told(
    byoc, moto, aws, no_engine
):
    assert byoc("train", "--name", "digits").code == 0
    assert byoc("describe", "digits").err == ""
    assert byoc("deploy", *MODEL, *ROLE, "--name", "digits").code == 0
    done = byoc("describe", "digits", "--json")
    assert "TrainingJobName" in done.json
    assert done.err == (
        "byoc: digits is the training job here; also called so: endpoint (--kind endpoint)\n"
    )
    done = byoc("describe", "digits", "--kind", "endpoint", "--json")
    assert ("EndpointName" in done.json, done.err) == (True, "")
    assert "(--kind endpoint)" in byoc("logs", "digits").err


def test_hints_name_the_kind_where_a_training_job_may_have_the_name(byoc, moto):
    words = ("process", "--entrypoint", "tool", "--name", "same", "--bucket", "b", *ROLE)
    assert "its log: byoc logs same --kind processing-job --follow" in byoc(*words).out


def test_stop_ends_a_job_and_says_when_it_has_ended_already(byoc, moto, aws):
    assert byoc("train", "--name", "one").code == 0
    done = byoc("stop", "one")
    assert done.code == 0
    assert "one" in done.out
    assert byoc("stop", "nobody").code == NotFoundError.exit_code
    (planned,) = [one for one in byoc.planned("stop", "one") if one["operation"].startswith("Stop")]
    assert planned["request"] == {"TrainingJobName": "one"}
