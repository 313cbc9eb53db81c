"""The AWS CLI against the local endpoint: the whole story, and what else people type."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local.host_processes import namespaces
from examples.demo import channel, picture
from tests.clients.conftest import (
    INFERENCE_IMAGE,
    PROGRAM_SECONDS,
    TRAINING_IMAGE,
    Client,
)
from tests.local.conftest import REGION, ROLE, eventually

if TYPE_CHECKING:
    from tests.local.conftest import Endpoint

pytestmark = pytest.mark.slow

STORY = Path(__file__).with_name("story.sh")
ACCOUNT = "123456789012"
STORY_BUCKET = f"sagemaker-{REGION}-{ACCOUNT}"
BUCKET = "commands"
#: Exit codes of the first CLI: a command line that is none, and any other failure.
NO_COMMAND, FAILURE = 2, 255
#: For what is the same whatever runs the images.
with_one_runner = pytest.mark.parametrize("endpoint", ["process"], indirect=True)
CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}


@pytest.fixture(scope="module")
def aws(environments: Path, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The CLI of its own environment, with waiters that look every second.

    The CLI cannot be told how often to look (for a training job: every two minutes), but it takes
    models below ``~/.aws/models`` before those that it brings.
    """
    client = Client(environments / "awscli", endpoint, tmp_path_factory.mktemp("user"))
    (brought,) = client.environment.glob("lib/python*/**/data/sagemaker/*/waiters-2.json")
    waiters = json.loads(brought.read_text())
    for waiter in waiters["waiters"].values():
        waiter.update(delay=1, maxAttempts=PROGRAM_SECONDS)
    models = client.home / ".aws/models/sagemaker" / brought.parent.name
    models.mkdir(parents=True)
    (models / brought.name).write_text(json.dumps(waiters))
    client.run("aws", "s3", "mb", f"s3://{BUCKET}")
    return client


def answer(client: Client, *words: str | Path) -> Any:
    """What a command says, JSON."""
    return json.loads(client.run("aws", *words))


def refused(client: Client, *words: str | Path) -> tuple[int, str]:
    """Exit code and words of a command that must fail."""
    done = subprocess.run(
        ["aws", *map(str, words)],
        cwd=client.home,
        env=client.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    assert done.stdout == ""
    return done.returncode, done.stderr.strip()


def log(client: Client, job: str) -> str:
    """What a training job has said so far."""
    done = subprocess.run(
        ["aws", "logs", "filter-log-events", "--log-group-name", "/aws/sagemaker/TrainingJobs",
         "--log-stream-name-prefix", f"{job}/", "--query", "events[].message"],
        env=client.environ, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False,
    )  # fmt: skip
    return done.stdout  # nothing, before the first line has made the group


@pytest.fixture(scope="module")
def digit(digits_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A picture of the test set, and what it shows."""
    images, labels = channel.read_test_set(digits_folder)
    path = tmp_path_factory.mktemp("picture") / "digit.png"
    picture.write_png(images[0], path)
    return path, int(labels[0])


@pytest.fixture(scope="module")
def told(aws: Client, digits_folder: Path, digit: tuple[Path, int]) -> str:
    """What the story says."""
    return aws.run(STORY, digits_folder, digit[0], EPOCHS="2")


def test_the_story_ends_with_the_right_digit_and_leaves_nothing_that_runs(aws, told, digit):
    assert f"Most likely answer: {digit[1]}\n" in told
    assert "train: train.py succeeded" in told  # of the job's log
    assert "project\tdigits\nstage\ttrial\n" in told
    for kind, member in (
        ("endpoints", "Endpoints"),
        ("endpoint-configs", "EndpointConfigs"),
        ("models", "Models"),
    ):
        assert answer(aws, "sagemaker", f"list-{kind}") == {member: []}
    job = answer(aws, "sagemaker", "describe-training-job", "--training-job-name", "digits")
    assert job["TrainingJobStatus"] == "Completed"
    listed = aws.run("aws", "s3", "ls", job["ModelArtifacts"]["S3ModelArtifacts"])
    assert listed.endswith(" model.tar.gz\n")


def test_a_folder_is_transformed(aws, told, digit):
    model, name = f"s3://{STORY_BUCKET}/digits/output/digits/output/model.tar.gz", "pictures"
    container = f"Image={INFERENCE_IMAGE},ModelDataUrl={model}"
    aws.run("aws", "s3", "cp", digit[0], f"s3://{BUCKET}/pictures/one.png")
    aws.run("aws", "sagemaker", "create-model", "--model-name", name,
            "--execution-role-arn", ROLE, "--primary-container", container)  # fmt: skip
    source = f"S3DataSource={{S3DataType=S3Prefix,S3Uri=s3://{BUCKET}/pictures/}}"
    aws.run(
        "aws", "sagemaker", "create-transform-job",
        "--transform-job-name", name, "--model-name", name,
        "--transform-input", f"DataSource={{{source}}},ContentType=image/png",
        "--transform-output", f"S3OutputPath=s3://{BUCKET}/answers,Accept=application/json",
        "--transform-resources", "InstanceType=ml.m5.large,InstanceCount=1",
    )  # fmt: skip
    job = ("--transform-job-name", name)
    aws.run("aws", "sagemaker", "wait", "transform-job-completed-or-stopped", *job)
    found = answer(aws, "sagemaker", "describe-transform-job", *job)
    assert found["TransformJobStatus"] == "Completed"
    (row,) = json.loads(aws.run("aws", "s3", "cp", f"s3://{BUCKET}/answers/one.png.out", "-"))
    assert row.index(max(row)) == digit[1]
    aws.run("aws", "sagemaker", "delete-model", "--model-name", name)


def test_a_script_from_s3_processes_a_folder(aws, endpoint):
    if endpoint.runner == "process" and not namespaces():
        pytest.skip("/opt/ml in a namespace of its own needs root")
    folder = "/opt/ml/processing"
    (aws.home / "upper.py").write_text(
        "from pathlib import Path\n"
        f"for path in Path('{folder}/input').iterdir():\n"
        f"    Path('{folder}/output', path.name).write_text(path.read_text().upper())\n"
    )
    (aws.home / "words.txt").write_text("all is well")
    aws.run("aws", "s3", "cp", "upper.py", f"s3://{BUCKET}/code/upper.py")
    aws.run("aws", "s3", "cp", "words.txt", f"s3://{BUCKET}/words/words.txt")
    inputs = [
        {
            "InputName": name,
            "S3Input": {
                "S3Uri": f"s3://{BUCKET}/{prefix}",
                "LocalPath": f"{folder}/{name}",
                "S3DataType": "S3Prefix",
                "S3InputMode": "File",
            },
        }
        for name, prefix in (("code", "code/upper.py"), ("input", "words/"))
    ]
    output = f"S3Uri=s3://{BUCKET}/upper,LocalPath={folder}/output,S3UploadMode=EndOfJob"
    command = json.dumps(
        {"ImageUri": TRAINING_IMAGE, "ContainerEntrypoint": ["python3", f"{folder}/code/upper.py"]}
    )
    job = ("--processing-job-name", "upper")
    aws.run(
        "aws", "sagemaker", "create-processing-job", *job, "--role-arn", ROLE,
        "--app-specification", command, "--processing-inputs", json.dumps(inputs),
        "--processing-output-config", f"Outputs=[{{OutputName=words,S3Output={{{output}}}}}]",
        "--processing-resources", json.dumps({"ClusterConfig": CLUSTER}),
    )  # fmt: skip
    aws.run("aws", "sagemaker", "wait", "processing-job-completed-or-stopped", *job)
    listed = answer(aws, "sagemaker", "list-processing-jobs", "--status-equals", "Completed")
    assert [one["ProcessingJobName"] for one in listed["ProcessingJobSummaries"]] == ["upper"]
    assert aws.run("aws", "s3", "cp", f"s3://{BUCKET}/upper/words.txt", "-") == "ALL IS WELL"


def test_a_job_from_a_file_is_stopped(aws):
    job = ("--training-job-name", "stopped")
    # As process 1 of a container, it is not ended by a signal that it does not handle.
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); "
        "print('ready', flush=True); time.sleep(600)"
    )
    (aws.home / "job.json").write_text(
        json.dumps(
            {
                "TrainingJobName": "stopped",
                "RoleArn": ROLE,
                "AlgorithmSpecification": {
                    "TrainingImage": TRAINING_IMAGE,
                    "TrainingInputMode": "File",
                    "ContainerEntrypoint": ["python3", "-c", program],
                },
                "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/stopped"},
                "ResourceConfig": CLUSTER,
                "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            }
        )
    )
    created = answer(aws, "sagemaker", "create-training-job", "--cli-input-json", "file://job.json")
    assert created["TrainingJobArn"].endswith(":training-job/stopped")
    code, words = refused(
        aws, "sagemaker", "create-training-job", "--cli-input-json", "file://job.json"
    )
    assert code == FAILURE
    assert "(ResourceInUse) when calling the CreateTrainingJob operation: Training job" in words
    eventually(lambda: "ready" in log(aws, "stopped"), 60)
    found = answer(aws, "sagemaker", "describe-training-job", *job)
    assert found["TrainingJobStatus"] == "InProgress"
    assert aws.run("aws", "sagemaker", "stop-training-job", *job) == ""
    aws.run("aws", "sagemaker", "wait", "training-job-completed-or-stopped", *job)
    found = answer(aws, "sagemaker", "describe-training-job", *job)
    assert (found["TrainingJobStatus"], found["SecondaryStatus"]) == ("Stopped", "Stopped")


@with_one_runner
def test_what_does_not_exist_is_told_in_amazons_words(aws):
    for words, operation, message in (
        (
            ("describe-training-job", "--training-job-name", "nobody"),
            "DescribeTrainingJob",
            "Requested resource not found.",
        ),
        (
            ("describe-endpoint", "--endpoint-name", "nobody"),
            "DescribeEndpoint",
            f'Could not find endpoint "arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/nobody".',
        ),
        (
            ("delete-model", "--model-name", "nobody"),
            "DeleteModel",
            f'Could not find model "arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/nobody".',
        ),
    ):
        code, said = refused(aws, "sagemaker", *words)
        assert code == FAILURE
        assert (
            f"An error occurred (ValidationException) when calling the {operation} operation: "
            f"{message}" in said
        )
    code, said = refused(
        aws, "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "nobody",
        "--body", "x", "answer",
    )  # fmt: skip
    assert code == FAILURE
    assert "(ValidationError) when calling the InvokeEndpoint operation: Endpoint nobody" in said
    assert not (aws.home / "answer").exists()


@with_one_runner
def test_a_wrong_field_is_refused_by_whoever_sees_it_first(aws):
    """A missing and an unknown one by the CLI, a name's form by the service."""
    code, said = refused(aws, "sagemaker", "create-model")
    assert code == NO_COMMAND
    assert "the following arguments are required: --model-name" in said
    code, said = refused(
        aws, "sagemaker", "create-model", "--model-name", "digits",
        "--primary-container", "Picture=x",
    )  # fmt: skip
    assert code == FAILURE
    assert 'Unknown parameter in PrimaryContainer: "Picture"' in said
    code, said = refused(
        aws, "sagemaker", "create-model", "--model-name", "under_score",
        "--execution-role-arn", ROLE, "--primary-container", f"Image={INFERENCE_IMAGE}",
    )  # fmt: skip
    assert code == FAILURE
    assert (
        "(ValidationException) when calling the CreateModel operation: 1 validation error "
        "detected: Value 'under_score' at 'modelName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: " in said
    )


@with_one_runner
def test_a_waiter_gives_up_with_the_reason(aws):
    code, said = refused(
        aws, "sagemaker", "wait", "endpoint-in-service", "--endpoint-name", "nobody"
    )
    assert code == FAILURE
    assert said.startswith("Waiter EndpointInService failed: ")
    assert said.endswith("Matched expected service error code: ValidationException")


@with_one_runner
def test_lists_are_paged(aws):
    names = ["page-a", "page-b", "page-c"]
    client = aws.endpoint.client("sagemaker")
    for name in names:
        container = {"Image": INFERENCE_IMAGE}
        client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    words = ("sagemaker", "list-models", "--name-contains", "page", "--sort-by", "Name",
             "--sort-order", "Ascending")  # fmt: skip
    first = answer(aws, *words, "--max-items", "2")
    assert [one["ModelName"] for one in first["Models"]] == names[:2]
    rest = answer(aws, *words, "--max-items", "2", "--starting-token", first["NextToken"])
    assert [one["ModelName"] for one in rest["Models"]] == names[2:]
    assert "NextToken" not in rest
    whole = answer(aws, *words, "--page-size", "1")
    assert [one["ModelName"] for one in whole["Models"]] == names


@with_one_runner
def test_a_folder_is_synchronized_both_ways(aws):
    folder = aws.home / "synchronized"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "ü 1.txt").write_text("deep")
    (folder / "large").write_bytes(bytes(range(256)) * 40_000)  # two parts
    there = f"s3://{BUCKET}/synchronized"
    said = aws.run("aws", "s3", "sync", folder, there, "--no-progress")
    assert said.count("upload: ") == 2
    assert aws.run("aws", "s3", "sync", folder, there) == ""
    (folder / "large").unlink()
    said = aws.run("aws", "s3", "sync", there, aws.home / "back", "--no-progress")
    assert said.count("download: ") == 2
    assert (aws.home / "back/deep/ü 1.txt").read_text() == "deep"
    assert (aws.home / "back/large").read_bytes() == bytes(range(256)) * 40_000
    said = aws.run("aws", "s3", "sync", folder, there, "--delete")
    assert said == f"delete: {there}/large\n"
    code, said = refused(aws, "s3", "cp", f"{there}/large", "-")
    assert code == 1
    assert "(404)" in said


@with_one_runner
def test_repositories_and_who_one_is_are_told(aws):
    repository = ("--repository-name", "sagemaker-byoc-training")
    made = answer(aws, "ecr", "create-repository", *repository)["repository"]
    host = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert made["repositoryUri"] == f"{host}/sagemaker-byoc-training"
    (found,) = answer(aws, "ecr", "describe-repositories")["repositories"]
    assert found == made
    assert aws.run("aws", "ecr", "get-login-password").strip()
    code, said = refused(aws, "ecr", "describe-repositories", "--repository-names", "none")
    assert code == FAILURE
    assert "(RepositoryNotFoundException)" in said
    assert answer(aws, "sts", "get-caller-identity")["Account"] == ACCOUNT
