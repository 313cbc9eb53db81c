"""``byoc train``: the request, the upload, the wait."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from byoc import kinds
from byoc.aws import Aws
from byoc.errors import (
    CombinationError,
    CredentialsError,
    FailedError,
    SettingsError,
    UnreachableError,
)
from byoc.jobs import wait
from byoc.report import Silent

REGISTRY = "111122223333.dkr.ecr"
ROLE = "arn:aws:iam::111122223333:role/sm"


def request_of(planned):
    return planned[-1]["request"]


def test_dry_run_prints_the_uploads_and_the_request_and_needs_no_credentials(byoc, digits):
    planned = byoc.planned(
        "train", "--data", f"training={digits}", "-p", "epochs=1", "-p", "lr=007", "--role", ROLE,
        "--bucket", "mine", "--name", "job", "--spot", "--max-time", "1h", "-e", "A=b", "--tag",
        "team=x", "--checkpoints", "--image", "team/mine:3",
    )  # fmt: skip
    assert [one["operation"] for one in planned] == ["PutObject", "PutObject", "CreateTrainingJob"]
    assert {one["bytes"] for one in planned[:2]} == {3936, 13}
    request = request_of(planned)
    uri = request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert planned[0]["request"]["Key"] == uri.removeprefix("s3://mine/") + "t10k-images-idx3-ubyte"
    assert request["TrainingJobName"] == "job"
    assert request["HyperParameters"] == {"epochs": "1", "lr": "007"}
    assert request["RoleArn"] == ROLE
    image = request["AlgorithmSpecification"]["TrainingImage"]
    assert image == "<account>.dkr.ecr.eu-central-1.amazonaws.com/team/mine:3"
    metrics = request["AlgorithmSpecification"]["MetricDefinitions"]
    assert [one["Name"] for one in metrics] == ["train_loss", "test_loss", "test_accuracy"]
    assert request["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200
    }  # fmt: skip
    assert request["EnableManagedSpotTraining"] is True
    assert request["Environment"] == {"A": "b"}
    assert request["Tags"] == [{"Key": "team", "Value": "x"}]
    assert request["CheckpointConfig"] == {"S3Uri": "s3://mine/byoc/checkpoints/job"}
    assert request["OutputDataConfig"] == {"S3OutputPath": "s3://mine/byoc/jobs"}


def test_a_toml_file_stands_for_options_and_options_stand_above_it(byoc, digits, tmp_path):
    (tmp_path / "job.toml").write_text(
        f"""
        region = "cn-north-1"
        role = "{ROLE.replace("aws", "aws-cn", 1)}"
        bucket = "mine"
        [train]
        instance-type = "ml.g5.xlarge"
        instance-count = 2
        spot = true
        metric = ["loss"]
        [train.data]
        training = "digits"
        test = "s3://other/test/"
        [train.hyperparameters]
        epochs = 14
        fast = true
        name = "1e5"
        [train.environment]
        DEBUG = true
        """
    )
    request = request_of(byoc.planned("train", "job.toml", "-p", "epochs=2", "-t", "ml.m5.large"))
    assert request["ResourceConfig"]["InstanceType"] == "ml.m5.large"
    assert request["ResourceConfig"]["InstanceCount"] == 2
    assert request["HyperParameters"] == {"epochs": "2", "fast": "true", "name": '"1e5"'}
    assert request["Environment"] == {"DEBUG": "true"}
    assert request["EnableManagedSpotTraining"] is True
    image = request["AlgorithmSpecification"]["TrainingImage"]
    assert image.endswith("cn-north-1.amazonaws.com.cn/sagemaker-byoc-training:latest")
    metrics = request["AlgorithmSpecification"]["MetricDefinitions"]
    assert [one["Name"] for one in metrics] == ["loss"]
    assert [one["ChannelName"] for one in request["InputDataConfig"]] == ["training", "test"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\ninstance_type = 'x'", "did you mean instance-type"),
        ("[train]\ndata = 5", "expected a table"),
        ("[train]\n[train.spot]\na = 1", "expected a value"),
        ("[train", "is no TOML"),
        ("[train]\nno-logs = true", "no-logs means nothing here; did you mean logs?"),
        ("[train]\nimage = ['a', 'b']", "expected a value"),
        ("[train]\nmetric = 'loss'", "expected a list"),
    ],
)
def test_a_wrong_file_is_one_line(byoc, tmp_path, text, said):
    (tmp_path / "job.toml").write_text(text)
    done = byoc("train", "job.toml", "--dry-run")
    assert done.code == SettingsError.exit_code
    assert said in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--data", "training=nowhere"), SettingsError.exit_code, "is not there: nowhere"),
        (("--data", "training"), SettingsError.exit_code, "NAME=VALUE"),
        (("-p", "epochs"), SettingsError.exit_code, "is no hyperparameter"),
        (("--max-time", "soon"), SettingsError.exit_code, "is no length of time"),
        (("--name", "a_b"), SettingsError.exit_code, "is no name"),
        (("--role", "arn:aws:iam::1:user/x"), SettingsError.exit_code, "is no role's ARN"),
        (("--role", ROLE, "--region", "cn-north-1"), SettingsError.exit_code, "is in aws-cn"),
        (
            ("--role", "r", "--bucket", "b", "--image", f"{REGISTRY}.us-east-1.amazonaws.com/a:1"),
            SettingsError.exit_code,
            "is in us-east-1, and SageMaker in eu-central-1",
        ),
        (("--metric", "a b"), SettingsError.exit_code, "is no name of a metric"),
        (("-t", "ml.c7g.large"), CombinationError.exit_code, "exec format error"),
        (("-t", "large"), CombinationError.exit_code, "is no instance type"),
        (("--instance-count", "0"), 2, "is not in the range"),
        (("--region", "moon"), SettingsError.exit_code, "is no region"),
        (("--profile", "nobody"), CredentialsError.exit_code, "nobody"),
    ],
)
def test_wrong_options_are_one_line_and_an_exit_code(byoc, words, code, said):
    done = byoc("train", *words, "--dry-run")
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
    if code != 2:
        assert len(done.err.splitlines()) == 1


def test_without_a_region_it_is_asked_for(byoc, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    done = byoc("train")
    assert done.code == SettingsError.exit_code
    assert "--region" in done.err


def test_configuration_files_are_read(byoc, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    role = "arn:aws-us-gov:iam::111122223333:role/sm"
    (tmp_path / "byoc.toml").write_text(
        f'region = "us-gov-west-1"\nrole = "{role}"\nbucket = "mine"'
    )
    request = request_of(byoc.planned("train"))
    assert request["RoleArn"] == role
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://mine/byoc/jobs"
    assert ".us-gov-west-1.amazonaws.com/" in request["AlgorithmSpecification"]["TrainingImage"]


def test_a_table_of_the_configuration_file_is_not_ignored(byoc, tmp_path):
    (tmp_path / "byoc.toml").write_text(
        f'role = "{ROLE}"\nbucket = "mine"\n[train]\ninstance-type = "ml.g5.xlarge"'
    )
    done = byoc("train", "--dry-run")
    assert done.code == SettingsError.exit_code
    assert "byoc train byoc.toml" in done.err
    assert len(done.err.splitlines()) == 1
    resources = request_of(byoc.planned("train", "byoc.toml"))["ResourceConfig"]
    assert resources["InstanceType"] == "ml.g5.xlarge"
    assert byoc("describe", "x", "--kind", "model", "--dry-run").code == 0


def test_data_is_uploaded_once_and_the_job_created(byoc, moto, aws, digits):
    words = ("train", "--data", f"training={digits}", "--name")
    first = byoc(*words, "one", "--json")
    assert first.code == 0, first.err
    assert first.json["TrainingJobName"] == "one"
    assert "training to s3://sagemaker-eu-central-1-123456789012/byoc/data/" in first.err
    again = byoc(*words, "two")
    assert again.code == 0
    assert "already" in again.out
    assert "byoc logs two --follow" in again.out
    job = aws.call("sagemaker", "DescribeTrainingJob", {"TrainingJobName": "one"})
    uri = job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        body = aws.client("s3").get_object(Bucket=bucket, Key=prefix + name)["Body"].read()
        assert body == (digits / name).read_bytes()


def test_a_changed_folder_goes_elsewhere_and_a_lost_object_is_sent_again(byoc, moto, aws, digits):
    words = ("train", "--data", f"training={digits}", "--name")
    byoc(*words, "one")
    bucket = "sagemaker-eu-central-1-123456789012"
    keys = [one["Key"] for one in aws.call("s3", "ListObjectsV2", {"Bucket": bucket})["Contents"]]
    aws.call("s3", "DeleteObject", {"Bucket": bucket, "Key": keys[0]})
    byoc(*words, "two")
    (digits / "more").write_text("x")
    byoc(*words, "three")
    contents = aws.call("s3", "ListObjectsV2", {"Bucket": bucket})["Contents"]
    assert len(contents) == 2 + 3
    assert keys[0] in {one["Key"] for one in contents}


def test_the_account_s_role_is_found_by_its_usual_name(byoc, moto, aws, far):
    done = byoc("train", "--yes")
    assert done.code == SettingsError.exit_code
    assert "--role" in done.err
    iam = boto3.client("iam", endpoint_url=moto, region_name="eu-central-1")
    iam.create_role(RoleName="Other", AssumeRolePolicyDocument="{}")
    role = iam.create_role(
        Path="/service-role/",
        RoleName="AmazonSageMaker-ExecutionRole-20260101T000000",
        AssumeRolePolicyDocument="{}",
    )["Role"]["Arn"]
    assert byoc("train", "--name", "one", "--yes").code == 0
    job = aws.call("sagemaker", "DescribeTrainingJob", {"TrainingJobName": "one"})
    assert job["RoleArn"] == role


def test_who_may_not_list_roles_must_name_one_and_other_errors_are_told_as_they_are(
    byoc, far, monkeypatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    for words in (
        ("train",),
        ("process", "--entrypoint", "x"),
        ("deploy", "--model-data", "s3://b/m.tar.gz"),
    ):
        done = byoc(*words)
        assert done.code == CredentialsError.exit_code, done
        assert "no AWS credentials" in done.err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert byoc("train").code == UnreachableError.exit_code

    def denied(*_: Any) -> Any:
        response: Any = {"Error": {"Code": "AccessDenied", "Message": "no"}}
        raise CredentialsError("no") from ClientError(response, "ListRoles")

    monkeypatch.setattr(Aws, "call", denied)
    done = byoc("train")
    assert done.code == SettingsError.exit_code
    assert "--role" in done.err


def test_a_bucket_is_made_only_with_consent(byoc, moto, aws, far):
    words = ("train", "--name", "one", "--role", ROLE)
    done = byoc(*words)
    assert done.code == SettingsError.exit_code
    assert "--yes" in done.err
    done = byoc(*words, "--yes")
    assert done.code == 0, done.err
    assert "made the bucket sagemaker-eu-central-1-123456789012" in done.out


class Job:
    """A job that goes through some states."""

    local = True
    dry_run = False

    def __init__(self, *states: Any) -> None:
        self.states = list(states)

    def ask(self, service, operation, request):
        return self.states.pop(0) if len(self.states) > 1 else dict(self.states[0])


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def job_of(*states: Any) -> Any:
    return Job(*states)


def state(status, *before: str, **more: Any):
    names = [*before, *([] if status == "InProgress" else [status])]
    transitions = [{"Status": name, "StatusMessage": f"it is {name}"} for name in names]
    return {
        "TrainingJobStatus": status,
        "SecondaryStatus": names[-1],
        "SecondaryStatusTransitions": transitions,
        **more,
    }


def test_the_wait_tells_each_state_once_and_ends_with_the_job(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    told = Told()
    job = job_of(
        state("InProgress", "Starting"),
        state("InProgress", "Starting", "Downloading", "Training"),
        state("InProgress", "Starting", "Downloading", "Training"),
        state("Completed", "Starting", "Downloading", "Training", BillableTimeInSeconds=7),
    )
    assert wait(job, kinds.TRAINING, "one", logs=False, report=told)["BillableTimeInSeconds"] == 7
    names = [line.split()[0] for line in told.lines]
    assert names == ["Starting", "Downloading", "Training", "Completed"]
    assert told.lines[1].endswith("it is Downloading")


@pytest.mark.parametrize("kind", [kinds.PROCESSING, kinds.TRANSFORM])
def test_the_wait_tells_each_state_of_a_job_without_a_history(kind, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    told = Told()
    states = ("InProgress", "InProgress", "Stopping", "Completed")
    job = job_of(*({kind.status: one} for one in states))
    wait(job, kind, "one", logs=False, report=told)
    assert [line.split()[0] for line in told.lines] == ["InProgress", "Stopping", "Completed"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (kinds.PROCESSING, "was stopped, or ran longer than --max-time"),
        (kinds.TRANSFORM, "was stopped: somebody stopped it"),  # which has no time limit
    ],
)
def test_a_job_that_does_not_say_why_it_was_stopped(kind, words):
    with pytest.raises(FailedError, match=words):
        wait(job_of({kind.status: "Stopped"}), kind, "one", logs=False)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (
            state("Failed", FailureReason="AlgorithmError:\nno data"),
            "failed: AlgorithmError: no data",
        ),
        (state("Stopped"), "somebody stopped it"),
        ({**state("Stopped"), "SecondaryStatus": "MaxRuntimeExceeded"}, "--max-time"),
    ],
)
def test_a_job_that_does_not_complete_is_an_error_with_its_reason(last, words):
    with pytest.raises(FailedError, match=words):
        wait(job_of(last), kinds.TRAINING, "one", logs=False)
