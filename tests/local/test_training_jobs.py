"""Training jobs through boto3, run by real `train` processes."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local.home import Home
from byoc.local.host_processes import namespaces
from byoc.local.store import Store
from tests.local.conftest import ROLE, Endpoint, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKET = "training-bucket"
NUMBERS = itertools.count(1)
#: What every program begins with.
HEAD = """
import json, os, pathlib, signal, sys, time
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
root = model.parent
host = os.environ["SM_CURRENT_HOST"]
data = root / "input" / "data"
"""
OUTPUT = f"s3://{BUCKET}/out"

own_mounts = pytest.mark.skipif(
    not namespaces(), reason="/opt/ml in a namespace of its own needs root"
)


class Jobs:
    """Training jobs of one endpoint."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.endpoint, self.folder = endpoint, folder
        self.sagemaker, self.s3 = endpoint.client("sagemaker"), endpoint.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)

    def request(self, program: str, **changes: Any) -> dict[str, Any]:
        name = f"job-{next(NUMBERS)}"
        code = self.folder / name
        code.mkdir()
        (code / "main.py").write_text(HEAD + program)
        parameters = {"sagemaker_program": "main.py", "sagemaker_submit_directory": str(code)}
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1",
                "TrainingInputMode": "File",
            },
            "OutputDataConfig": {"S3OutputPath": OUTPUT},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        specification = {**request["AlgorithmSpecification"], **changes.pop("algorithm", {})}
        request["AlgorithmSpecification"] = specification
        request["HyperParameters"] = {**parameters, **changes.pop("HyperParameters", {})}
        return {**request, **changes}

    def start(self, program: str, **changes: Any) -> str:
        request = self.request(program, **changes)
        self.sagemaker.create_training_job(**request)
        name: str = request["TrainingJobName"]
        return name

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def wait(self, name: str, status: str | None = None, seconds: float = 30) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = self.describe(name)
            return None if found["TrainingJobStatus"] in ("InProgress", "Stopping") else found

        found: dict[str, Any] = eventually(ended, seconds)
        if status is not None:
            told = (found["TrainingJobStatus"], found.get("FailureReason"), self.log(name))
            assert found["TrainingJobStatus"] == status, told
        return found

    def run(self, program: str, status: str | None = "Completed", **changes: Any) -> dict[str, Any]:
        return self.wait(self.start(program, **changes), status)

    def put(self, **objects: bytes | str) -> None:
        for name, content in objects.items():
            body = content.encode() if isinstance(content, str) else content
            self.s3.put_object(Bucket=BUCKET, Key=name, Body=body)

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [one["Key"].removeprefix(prefix) for one in found]

    def archive(self, name: str, file: str) -> dict[str, str]:
        body = self.s3.get_object(Bucket=BUCKET, Key=f"out/{name}/output/{file}")["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
            found = {}
            for member in tar.getmembers():
                if member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = content.read().decode()
            return found

    def log(self, name: str, host: str = "algo-1") -> list[str]:
        logs = self.endpoint.client("logs")
        group = "/aws/sagemaker/TrainingJobs"
        try:
            streams = logs.describe_log_streams(
                logGroupName=group, logStreamNamePrefix=f"{name}/{host}"
            )
        except logs.exceptions.ResourceNotFoundException:
            return []  # nothing has been said yet
        if not streams["logStreams"]:
            return []
        stream = streams["logStreams"][0]["logStreamName"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)
        return [event["message"] for event in events["events"]]

    def said(self, name: str, words: str) -> None:
        eventually(lambda: words in self.log(name))


@pytest.fixture(scope="module")
def jobs(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(endpoint, tmp_path_factory.mktemp("programs"))


def gone(pid: int) -> bool:
    """Whether a process has ended; its new parent may not have heard of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def channel(uri: str, name: str = "training", **changes: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, **changes.pop("source", {})}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **changes}


def transitions(found: dict[str, Any]) -> list[str]:
    return [one["Status"] for one in found["SecondaryStatusTransitions"]]


def test_a_job_is_trained_and_its_model_is_stored(jobs):
    jobs.put(**{"digits/a.csv": "1,2", "digits/deep/b.csv": "3"})
    name = jobs.start(
        "(model / 'weights.bin').write_text('w')\n"
        "(model / 'code').mkdir(); (model / 'code' / 'inference.py').write_text('i')\n"
        "(root / 'output' / 'data' / 'curve.csv').write_text('c')\n"
        "print('channel', sorted(str(p.relative_to(data)) for p in data.rglob('*.csv')))\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/digits")],
        Tags=[{"Key": "team", "Value": "a"}],
    )
    jobs.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    found = jobs.describe(name)
    assert found["TrainingJobStatus"] == "Completed"
    assert jobs.archive(name, "model.tar.gz") == {"weights.bin": "w", "code/inference.py": "i"}
    assert jobs.archive(name, "output.tar.gz") == {"curve.csv": "c"}
    artifact = found["ModelArtifacts"]["S3ModelArtifacts"]
    assert artifact == f"{OUTPUT}/{name}/output/model.tar.gz"
    log = jobs.log(name)
    assert log[0].startswith("byoc: runner process: ")
    assert "channel ['training/a.csv', 'training/deep/b.csv']" in log
    tags = jobs.sagemaker.list_tags(ResourceArn=found["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]


def test_statuses_follow_each_other_with_real_times(jobs):
    before = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=1)
    found = jobs.run("time.sleep(1.2)")
    assert transitions(found) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    steps = found["SecondaryStatusTransitions"]
    assert all(one["EndTime"] == two["StartTime"] for one, two in itertools.pairwise(steps))
    assert steps[-1]["StartTime"] == steps[-1]["EndTime"] == found["TrainingEndTime"]
    assert (steps[2]["EndTime"] - steps[2]["StartTime"]).total_seconds() > 1.2
    assert before < found["CreationTime"] <= found["TrainingStartTime"] < found["TrainingEndTime"]
    assert found["TrainingTimeInSeconds"] == found["BillableTimeInSeconds"] in (1, 2, 3)
    assert found["SecondaryStatus"] == "Completed"
    assert all(one["StatusMessage"] for one in steps)


def test_describe_answers_what_the_request_said(jobs):
    request = jobs.request(
        "",
        Environment={"MODE": "fast"},
        EnableNetworkIsolation=False,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90},
        RetryStrategy={"MaximumRetryAttempts": 2},
        OutputDataConfig={"S3OutputPath": OUTPUT, "KmsKeyId": "key", "CompressionType": "NONE"},
    )
    request["ResourceConfig"]["VolumeKmsKeyId"] = "key"
    arn = jobs.sagemaker.create_training_job(**request)["TrainingJobArn"]
    found = jobs.wait(request["TrainingJobName"], "Completed")
    assert found["TrainingJobArn"] == arn
    assert {key: found[key] for key in request} == request
    summary = next(
        one
        for one in jobs.sagemaker.list_training_jobs()["TrainingJobSummaries"]
        if one["TrainingJobArn"] == arn
    )
    assert summary["TrainingJobStatus"] == "Completed"
    assert summary["TrainingEndTime"] == found["TrainingEndTime"]


def test_describe_fills_in_what_the_request_leaves_out(jobs):
    jobs.put(**{"little/one.txt": "1"})
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/little"}
    given = {"ChannelName": "little", "DataSource": {"S3DataSource": source}}
    found = jobs.run("", InputDataConfig=[given])
    assert found["OutputDataConfig"] == {
        "S3OutputPath": OUTPUT,
        "KmsKeyId": "",
        "CompressionType": "GZIP",
    }
    (channel,) = found["InputDataConfig"]
    assert (channel["CompressionType"], channel["RecordWrapperType"]) == ("None", "None")
    switches = (
        "EnableNetworkIsolation",
        "EnableInterContainerTrafficEncryption",
        "EnableManagedSpotTraining",
    )
    assert [found[switch] for switch in switches] == [False] * 3
    # The archive that a compression type of NONE would not make.
    assert found["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model.tar.gz")


@own_mounts
def test_the_configuration_is_what_the_platform_writes(jobs):
    program = (
        "import glob; folder = '/opt/ml/input/config/'\n"
        "files = {p[len(folder):]: open(p).read() for p in glob.glob(folder + '*')}\n"
        "(model / 'files.json').write_text(json.dumps(files))\n"
    )
    jobs.put(**{"few/one.txt": "1", "pipe/one.txt": "1"})
    request = jobs.request(
        program,
        HyperParameters={"lr": "0.1", "text": 'quoted "text"\nü'},
        InputDataConfig=[
            channel(f"s3://{BUCKET}/few/", "fast", InputMode="FastFile", ContentType="text/csv"),
            channel(f"s3://{BUCKET}/pipe/", "pipe", InputMode="Pipe"),
        ],
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checks"},
        algorithm={"MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}]},
    )
    jobs.sagemaker.create_training_job(**request)
    name = request["TrainingJobName"]
    jobs.wait(name, "Completed")
    files = json.loads(jobs.archive(name, "model.tar.gz")["files.json"])
    assert files["resourceconfig.json"] == (
        '{"current_host":"algo-1","current_instance_type":"ml.m5.large",'
        '"current_group_name":"homogeneousCluster","hosts":["algo-1"],"instance_groups":'
        '[{"instance_group_name":"homogeneousCluster","instance_type":"ml.m5.large",'
        '"hosts":["algo-1"]}],"network_interface_name":"lo"}'
    )
    assert files["inputdataconfig.json"] == (
        '{"fast":{"ContentType":"text/csv","TrainingInputMode":"File",'
        '"S3DistributionType":"FullyReplicated","RecordWrapperType":"None"},'
        '"pipe":{"TrainingInputMode":"Pipe",'
        '"S3DistributionType":"FullyReplicated","RecordWrapperType":"None"}}'
    )
    assert json.loads(files["hyperparameters.json"]) == request["HyperParameters"]
    assert json.loads(files["checkpointconfig.json"]) == request["CheckpointConfig"]
    assert json.loads(files["metric-definition-regex.json"])[0]["Name"] == "loss"
    assert json.loads(files["trainingjobconfig.json"])["TrainingJobName"] == name


def test_the_environment_is_the_platforms_and_the_requests(jobs):
    names = ("TRAINING_JOB_NAME", "TRAINING_JOB_ARN", "AWS_REGION", "MINE", "BYOC_HOME")
    program = f"print(json.dumps([os.environ.get(name) for name in {names!r}]))"
    found = jobs.run(program, Environment={"MINE": "a b"})
    name = found["TrainingJobName"]
    expected = [name, found["TrainingJobArn"], "us-east-1", "a b", None]
    assert json.dumps(expected) in jobs.log(name)


def test_the_program_reaches_the_endpoint_as_on_the_platform(jobs):
    jobs.put(fact="42")
    program = (
        "import boto3\n"
        f"body = boto3.client('s3').get_object(Bucket='{BUCKET}', Key='fact')['Body']\n"
        "print('fact', body.read()); body.close()\n"
    )
    found = jobs.run(program)
    assert "fact b'42'" in jobs.log(found["TrainingJobName"])


def test_the_source_comes_from_s3(jobs, tmp_path):
    (tmp_path / "main.py").write_text("print('from S3')")
    with tarfile.open(tmp_path / "sourcedir.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "main.py", "main.py")
    jobs.put(**{"source/sourcedir.tar.gz": (tmp_path / "sourcedir.tar.gz").read_bytes()})
    uri = f"s3://{BUCKET}/source/sourcedir.tar.gz"
    found = jobs.run("", HyperParameters={"sagemaker_submit_directory": json.dumps(uri)})
    assert "from S3" in jobs.log(found["TrainingJobName"])


LIST = "print(sorted(p.relative_to(data).as_posix() for p in data.rglob('*') if p.is_file()))"


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("digits", ["training/a", "training/deep/b"]),
        ("digits/", ["training/a", "training/deep/b"]),
        ("digits/deep/b", ["training/b"]),
        ("digits/d", ["training/deep/b"]),
    ],
)
def test_a_prefix_brings_what_is_below_it(jobs, uri, files):
    jobs.put(**{"digits/a": "1", "digits/deep/b": "2", "other": "3"})
    jobs.s3.delete_object(Bucket=BUCKET, Key="digits/a.csv")
    jobs.s3.delete_object(Bucket=BUCKET, Key="digits/deep/b.csv")
    found = jobs.run(LIST, InputDataConfig=[channel(f"s3://{BUCKET}/{uri}")])
    assert str(files) in jobs.log(found["TrainingJobName"])


def test_a_manifest_brings_what_it_names(jobs):
    manifest = [{"prefix": f"s3://{BUCKET}/many/"}, "x", "deep/y"]
    jobs.put(**{"many/x": "1", "many/deep/y": "2", "many/z": "3", "m": json.dumps(manifest)})
    source = {"S3DataType": "ManifestFile"}
    found = jobs.run(LIST, InputDataConfig=[channel(f"s3://{BUCKET}/m", source=source)])
    assert "['training/deep/y', 'training/x']" in jobs.log(found["TrainingJobName"])


@pytest.mark.skipif(
    os.geteuid() == 0 and not namespaces(), reason="root may write what is not mounted read-only"
)
def test_a_fastfile_channel_cannot_be_written(jobs):
    jobs.put(**{"fast/x": "1"})
    found = jobs.run(
        "print((data / 'training' / 'x').read_text())\n"
        "try: (data / 'training' / 'new').write_text('x')\n"
        "except OSError as error: print('refused', error.errno in (13, 30))\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/fast/", InputMode="FastFile")],
    )
    assert "refused True" in jobs.log(found["TrainingJobName"])


def test_a_pipe_channel_gives_its_content_once_an_epoch(jobs):
    jobs.put(**{"piped/a": "first\n", "piped/b": "second\n"})
    found = jobs.run(
        "for epoch in range(3):\n"
        "    pipe = data / f'training_{epoch}'\n"
        "    while not pipe.exists(): time.sleep(0.01)\n"
        "    with open(pipe) as file: print(epoch, file.read().split())\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/piped/", InputMode="Pipe")],
    )
    log = jobs.log(found["TrainingJobName"])
    assert [f"{epoch} ['first', 'second']" in log for epoch in range(3)] == [True] * 3


def test_an_augmented_manifest_is_a_pipe_of_its_attributes(jobs):
    lines = [{"image-ref": f"s3://{BUCKET}/img/{n}", "label": n} for n in (1, 2)]
    manifest = "\n".join(json.dumps(line) for line in lines)
    jobs.put(**{"img/1": "one", "img/2": "two", "augmented": manifest})
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["image-ref", "label"]}
    found = jobs.run(
        "import struct\n"
        "with open(data / 'training_0', 'rb') as file:\n"
        "    while head := file.read(8):\n"
        "        magic, size = struct.unpack('<II', head)\n"
        "        print(hex(magic), file.read(size + -size % 4)[:size])\n",
        InputDataConfig=[
            channel(
                f"s3://{BUCKET}/augmented",
                source=source,
                InputMode="Pipe",
                RecordWrapperType="RecordIO",
            )
        ],
    )
    log = jobs.log(found["TrainingJobName"])
    records = [line for line in log if line.startswith("0xced7230a")]
    assert records == [f"0xced7230a {r!r}" for r in (b"one", b"1", b"two", b"2")]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"s3://{BUCKET}/nothing/here", f's3://{BUCKET}/nothing/here" given in input data source'),
        ("s3://no-such-bucket/x", "The specified bucket does not exist"),
    ],
)
def test_data_that_are_not_there_fail_the_job(jobs, uri, words):
    found = jobs.run("", "Failed", InputDataConfig=[channel(uri)])
    assert found["FailureReason"].startswith("ClientError: Data download failed:No S3 objects")
    assert words in found["FailureReason"]
    assert transitions(found) == ["Starting", "Downloading", "Failed"]


def test_an_object_that_a_manifest_names_in_vain_fails_the_job(jobs):
    manifest = [{"prefix": f"s3://{BUCKET}/many/"}, "lost"]
    jobs.put(**{"bad-manifest": json.dumps(manifest), "no-manifest": "{}"})
    source = {"S3DataType": "ManifestFile"}
    uri = f"s3://{BUCKET}/bad-manifest"
    found = jobs.run("", "Failed", InputDataConfig=[channel(uri, source=source)])
    assert found["FailureReason"] == (
        "ClientError: Data download failed:NoSuchKey (404): The specified key does not exist. "
        f"(s3://{BUCKET}/many/lost)"
    )
    uri = f"s3://{BUCKET}/no-manifest"
    found = jobs.run("", "Failed", InputDataConfig=[channel(uri, source=source)])
    assert "no-manifest is none: expected a JSON list" in found["FailureReason"]


def test_the_failure_file_becomes_the_reason(jobs):
    found = jobs.run("raise ValueError('the data are bad')", "Failed")
    assert found["FailureReason"].startswith("AlgorithmError: ValueError: the data are bad")
    assert found["FailureReason"].endswith(", exit code: 1")
    assert found["SecondaryStatus"] == "Failed"
    assert "TrainingEndTime" in found
    assert jobs.keys(f"out/{found['TrainingJobName']}/") == []


def test_a_long_reason_keeps_its_exit_code(jobs):
    found = jobs.run("raise ValueError('x' * 2000)", "Failed")
    assert len(found["FailureReason"]) <= 1024
    assert found["FailureReason"].endswith(", exit code: 1")


@own_mounts
def test_entry_point_and_arguments_replace_train(jobs):
    script = "import sys; print('arguments', sys.argv[1:]); sys.exit(3)"
    entry = {"ContainerEntrypoint": ["python3", "-c", script], "ContainerArguments": ["a", "b c"]}
    found = jobs.run("", "Failed", algorithm=entry)
    assert "arguments ['a', 'b c']" in jobs.log(found["TrainingJobName"])
    assert found["FailureReason"] == (
        "AlgorithmError: see the job's log for more information, exit code: 3"
    )
    found = jobs.run("", algorithm={"ContainerArguments": ["ls", "/opt/ml"]})
    assert "input" in jobs.log(found["TrainingJobName"])


def test_a_program_that_is_not_there_fails_the_job(jobs):
    entry = {"ContainerEntrypoint": ["no-such-program"]}
    found = jobs.run("", "Failed", algorithm=entry)
    expected = "no program no-such-program" if namespaces() else "needs a Docker engine"
    assert expected in found["FailureReason"]


def test_the_last_value_of_each_metric_is_kept(jobs):
    definitions = [
        {"Name": "loss", "Regex": r"loss=([0-9.]+)"},
        {"Name": "accuracy", "Regex": r"accuracy=([0-9.e-]+);"},
        {"Name": "absent", "Regex": r"absent=(\d+)"},
        {"Name": "text", "Regex": r"(loss)="},
    ]
    found = jobs.run(
        "print('loss=0.5 accuracy=1e-1;'); print('loss=0.25')",
        algorithm={"MetricDefinitions": definitions},
    )
    values = {one["MetricName"]: one["Value"] for one in found["FinalMetricDataList"]}
    assert values == pytest.approx({"loss": 0.25, "accuracy": 0.1})
    start, end = found["TrainingStartTime"], found["TrainingEndTime"]
    assert all(start <= one["Timestamp"] <= end for one in found["FinalMetricDataList"])


def test_checkpoints_come_before_and_follow_during_and_after(jobs):
    jobs.put(**{"ck/epoch-1": "one", "ck/epoch-0": "zero"})
    name = jobs.start(
        "folder = root / 'checkpoints'\n"
        "print('there', sorted(p.name for p in folder.iterdir()), flush=True)\n"
        "(folder / 'epoch-2').write_text('two'); (folder / 'epoch-0').unlink()\n"
        "while not (folder / 'go').exists() and not os.path.exists(os.environ['GO']):\n"
        "    time.sleep(0.02)\n"
        "(folder / 'epoch-3').write_text('three')\n",
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/ck/"},
        Environment={"GO": str(jobs.folder / "go")},
    )
    eventually(lambda: jobs.keys("ck/") == ["epoch-1", "epoch-2"])
    assert jobs.describe(name)["TrainingJobStatus"] == "InProgress"
    (jobs.folder / "go").touch()
    jobs.wait(name, "Completed")
    assert jobs.keys("ck/") == ["epoch-1", "epoch-2", "epoch-3"]
    assert "there ['epoch-0', 'epoch-1']" in jobs.log(name)


WAITS = (
    "def stop(*_):\n"
    "    (model / 'partial').write_text('p'); print('saved', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "print('ready', flush=True)\n"
    "time.sleep(100)\n"
)


def test_a_stopped_job_has_120_seconds_and_its_model_is_stored(jobs):
    name = jobs.start(WAITS)
    jobs.said(name, "ready")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    found = jobs.wait(name, "Stopped")
    assert found["SecondaryStatus"] == "Stopped"
    assert transitions(found)[-4:] == ["Training", "Stopping", "Uploading", "Stopped"]
    assert jobs.archive(name, "model.tar.gz") == {"partial": "p"}
    assert "FailureReason" not in found
    with pytest.raises(jobs.sagemaker.exceptions.ClientError, match="in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName=name)


def test_the_time_limit_stops_a_job(jobs):
    name = jobs.start(WAITS, StoppingCondition={"MaxRuntimeInSeconds": 2})
    found = jobs.wait(name, "Stopped")
    assert found["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert jobs.archive(name, "model.tar.gz") == {"partial": "p"}
    assert "saved" in jobs.log(name)
    assert 2 <= found["TrainingTimeInSeconds"] <= 5


def test_jobs_wait_for_each_other_and_one_that_waits_can_be_stopped(jobs):
    first = jobs.start(WAITS)
    jobs.said(first, "ready")
    second, third = jobs.start("print('late')"), jobs.start("")

    def message(name: str) -> str:
        found = jobs.describe(name)
        last = found["SecondaryStatusTransitions"][-1]
        return f"{found['SecondaryStatus']}: {last['StatusMessage']}"

    eventually(lambda: "Pending: Waiting on this machine: 1 job is before" in message(second))
    eventually(lambda: "2 jobs are before this one" in message(third))
    jobs.sagemaker.stop_training_job(TrainingJobName=second)
    stopped = jobs.describe(second)
    assert (stopped["TrainingJobStatus"], stopped["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "TrainingStartTime" not in stopped
    eventually(lambda: "1 job is before this one" in message(third))
    jobs.sagemaker.stop_training_job(TrainingJobName=first)
    found = jobs.wait(third, "Completed")
    assert transitions(found)[:3] == ["Starting", "Pending", "Starting"]


def test_a_process_that_is_killed_from_outside_fails_the_job(jobs):
    name = jobs.start("print('pid', os.getppid(), flush=True); time.sleep(100)")

    def pid() -> int | None:
        return next((int(w[4:]) for w in jobs.log(name) if w.startswith("pid ")), None)

    os.kill(eventually(pid), signal.SIGKILL)
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"] == (
        "AlgorithmError: the process was killed from outside, or for want of memory, exit code: 137"
    )


def test_what_a_program_leaves_running_ends_with_it(jobs):
    found = jobs.run(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '100'], start_new_session=True)\n"
        "print('child', child.pid, flush=True); os._exit(0)\n"
    )
    log = jobs.log(found["TrainingJobName"])
    child = next(int(line[6:]) for line in log if line.startswith("child "))
    eventually(lambda: gone(child))


def test_an_uncompressed_output_is_stored_file_by_file(jobs):
    output = {"S3OutputPath": OUTPUT + "/", "CompressionType": "NONE"}
    found = jobs.run("(model / 'w').write_text('w')", OutputDataConfig=output)
    name = found["TrainingJobName"]
    assert found["ModelArtifacts"]["S3ModelArtifacts"] == f"{OUTPUT}/{name}/output/model/"
    assert jobs.keys(f"out/{name}/output/") == ["model/w"]


def test_a_job_without_a_model_has_an_empty_archive(jobs):
    found = jobs.run("")
    name = found["TrainingJobName"]
    assert jobs.keys(f"out/{name}/output/") == ["model.tar.gz"]
    assert jobs.archive(name, "model.tar.gz") == {}


def test_a_job_without_a_limit_has_a_day(jobs):
    request = jobs.request("")
    del request["StoppingCondition"]
    jobs.sagemaker.create_training_job(**request)
    found = jobs.wait(request["TrainingJobName"], "Completed")
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}


def test_an_output_that_cannot_be_stored_fails_the_job(jobs):
    found = jobs.run("", "Failed", OutputDataConfig={"S3OutputPath": "s3://no-such-bucket/x"})
    assert found["FailureReason"].startswith("ClientError: Artifact upload failed:")
    assert "NoSuchBucket" in found["FailureReason"]
    found = jobs.run("(model / 'link').symlink_to('/etc/passwd')", "Failed")
    assert "is a symbolic link" in found["FailureReason"]


CLUSTER = {"byoc_launcher": "torchrun"}
SHARED = "print('host', host, sorted(p.name for p in (data / 'training').iterdir()), flush=True)\n"


@pytest.mark.slow
def test_several_hosts_share_the_data_and_their_outputs_are_merged(jobs):
    jobs.put(**{f"shards/{n}": str(n) for n in range(5)})
    found = jobs.run(
        SHARED + "(model / f'rank-{os.environ[\"RANK\"]}').write_text(host)\n"
        "(model / 'common').write_text(host)\n",
        HyperParameters=CLUSTER,
        InputDataConfig=[
            channel(f"s3://{BUCKET}/shards/", source={"S3DataDistributionType": "ShardedByS3Key"})
        ],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
    )
    name = found["TrainingJobName"]
    first, second = jobs.log(name, "algo-1"), jobs.log(name, "algo-2")
    assert any(line.endswith("['0', '2', '4']") for line in first if line.startswith("host "))
    assert any(line.endswith("['1', '3']") for line in second if line.startswith("host "))
    model = jobs.archive(name, "model.tar.gz")
    assert set(model) == {"rank-0", "rank-1", "common"}
    assert model["common"] == model["rank-0"]
    assert "byoc: several hosts wrote common; the first host's file is kept" in first


@pytest.mark.slow
def test_instance_groups_are_hosts_of_several_types(jobs):
    jobs.put(**{"groups/x": "1"})
    found = jobs.run(
        "config = json.loads((root / 'input/config/resourceconfig.json').read_text())\n"
        "print(json.dumps([config['current_group_name'], config['current_instance_type'],\n"
        "    len(config['instance_groups'][1]['hosts']), (data / 'training').exists()]))\n",
        InputDataConfig=[channel(f"s3://{BUCKET}/groups/", source={"InstanceGroupNames": ["big"]})],
        ResourceConfig={
            "VolumeSizeInGB": 1,
            "InstanceGroups": [
                {"InstanceGroupName": "big", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
                {"InstanceGroupName": "small", "InstanceType": "ml.m5.large", "InstanceCount": 2},
            ],
        },
    )
    name = found["TrainingJobName"]
    assert '["big", "ml.m5.xlarge", 2, true]' in jobs.log(name, "algo-1")
    for host in ("algo-2", "algo-3"):
        assert '["small", "ml.m5.large", 2, false]' in jobs.log(name, host)


@pytest.mark.slow
def test_the_first_host_that_fails_gives_the_reason(jobs):
    found = jobs.run(
        "if os.environ['RANK'] == '1': raise ValueError('only here')\ntime.sleep(100)\n",
        "Failed",
        HyperParameters=CLUSTER,
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
    )
    assert "ValueError: only here" in found["FailureReason"]


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a member, given by its path; None removes it."""
    *way, last = path.split(".")

    def change(request: dict[str, Any]) -> None:
        place: Any = request
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


BAD = {
    "RoleArn": ("role", "arn:aws"),
    "TrainingJobName": ("-bad", "trainingJobName"),
    "HyperParameters": ({"k": "x" * 2501}, "hyperParameters"),
    "Environment": ({"1": "x"}, "environment"),
    "AlgorithmSpecification.TrainingImage": (None, "Exactly one of TrainingImage"),
    "AlgorithmSpecification.AlgorithmName": ("x", "Exactly one of TrainingImage"),
    "AlgorithmSpecification.TrainingInputMode": ("Fast", "enum value set"),
    "AlgorithmSpecification.MetricDefinitions": ([{"Name": "a", "Regex": "("}], "is invalid"),
    "ResourceConfig": ({"VolumeSizeInGB": 1, "InstanceCount": 1}, "InstanceType"),
    "ResourceConfig.InstanceType": ("ml.nothing.large", "enum value set"),
    "ResourceConfig.InstanceCount": (-1, "greater than or equal to"),
    "OutputDataConfig.S3OutputPath": ("https://example.com/x", "outputDataConfig.s3OutputPath"),
    "StoppingCondition.MaxRuntimeInSeconds": (0, "greater than or equal to 1"),
    "StoppingCondition.MaxWaitTimeInSeconds": (100, "managed spot"),
    "EnableManagedSpotTraining": (True, "MaxWaitTimeInSeconds"),
    "InputDataConfig.0.DataSource.S3DataSource.S3Uri": ("https://x/y", "s3Uri"),
    "InputDataConfig.0.DataSource.S3DataSource.S3DataType": ("Converse", "locally"),
    "InputDataConfig.0.DataSource.S3DataSource.InstanceGroupNames": (["g"], "unknown"),
    "InputDataConfig.0.DataSource": (
        {
            "FileSystemDataSource": {
                "FileSystemId": "fs-12345678901",
                "FileSystemAccessMode": "ro",
                "FileSystemType": "EFS",
                "DirectoryPath": "/x",
            }
        },
        "needs an S3DataSource",
    ),
    "InputDataConfig.0.ChannelName": ("a b", "channelName"),
    "InputDataConfig.1.ChannelName": ("training", "unique"),
    "InputDataConfig.0.CompressionType": ("Gzip", "needs the input mode Pipe"),
    "InputDataConfig.0.RecordWrapperType": ("RecordIO", "needs the input mode Pipe"),
    "CheckpointConfig": ({"S3Uri": f"s3://{BUCKET}/x", "LocalPath": "/opt/ml"}, "reserved"),
    "Tags": ([{"Key": "", "Value": "x"}], "tags"),
}


@pytest.mark.parametrize("path", BAD)
def test_a_wrong_field_is_refused(jobs, path):
    value, words = BAD[path]
    request = jobs.request(
        "", InputDataConfig=[channel(f"s3://{BUCKET}/x"), channel(f"s3://{BUCKET}/y", "other")]
    )
    changed(path, value)(request)
    client = jobs.sagemaker
    with pytest.raises(client.exceptions.ClientError) as caught:
        unchecked(jobs.endpoint).create_training_job(**request)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert words in error["Message"]


def unchecked(endpoint: Endpoint) -> Any:
    """A client that sends what it is given."""
    client = endpoint.client("sagemaker")
    client.meta.config.parameter_validation = False
    client._serializer = __import__("botocore.serialize", fromlist=["x"]).create_serializer(
        "json", include_validation=False
    )
    return client


@pytest.mark.parametrize(
    "member",
    [
        "TrainingJobName",
        "RoleArn",
        "AlgorithmSpecification",
        "OutputDataConfig",
        "ResourceConfig",
    ],
)
def test_a_missing_field_is_named(jobs, member):
    request = jobs.request("")
    del request[member]
    with pytest.raises(jobs.sagemaker.exceptions.ClientError) as caught:
        unchecked(jobs.endpoint).create_training_job(**request)
    small = member[0].lower() + member[1:]
    assert f"'{small}' failed to satisfy constraint: Member must not be null" in str(caught.value)


def test_names_are_unique_and_unknown_ones_are_told(jobs):
    request = jobs.request("")
    jobs.sagemaker.create_training_job(**request)
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse, match="must be unique"):
        jobs.sagemaker.create_training_job(**request)
    jobs.wait(request["TrainingJobName"], "Completed")
    for action in ("describe", "stop", "delete"):
        with pytest.raises(jobs.sagemaker.exceptions.ClientError) as caught:
            getattr(jobs.sagemaker, f"{action}_training_job")(TrainingJobName="nobody")
        assert caught.value.response["Error"]["Message"] == "Requested resource not found."


def test_a_job_that_has_ended_can_be_deleted(jobs):
    name = jobs.start(WAITS)
    with pytest.raises(jobs.sagemaker.exceptions.ResourceInUse):
        jobs.sagemaker.delete_training_job(TrainingJobName=name)
    jobs.said(name, "ready")
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    jobs.wait(name, "Stopped")
    jobs.sagemaker.delete_training_job(TrainingJobName=name)
    with pytest.raises(jobs.sagemaker.exceptions.ClientError):
        jobs.describe(name)


def test_an_image_that_does_not_exist_fails_the_job(tmp_path, own_endpoint):
    own_endpoint.runner = "docker"
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    found = jobs.run("", "Failed", algorithm={"TrainingImage": "byoc-no-such-image:1"})
    assert found["FailureReason"].startswith("ClientError: Cannot access the image: ")
    assert "byoc-no-such-image:1" in found["FailureReason"]


def test_a_killed_endpoint_fails_what_ran_and_runs_what_waited(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    done = jobs.run("print('kept')")["TrainingJobName"]
    ran = jobs.start("print('pid', os.getpid(), flush=True); time.sleep(100)")

    def pid() -> int | None:
        return next((int(w[4:]) for w in jobs.log(ran) if w.startswith("pid ")), None)

    program = eventually(pid)
    waited = jobs.start("print('after all')")
    eventually(lambda: jobs.describe(waited)["SecondaryStatus"] == "Pending")
    own_endpoint.kill()
    own_endpoint.start()
    jobs.endpoint, jobs.s3 = own_endpoint, own_endpoint.client("s3")
    jobs.sagemaker = own_endpoint.client("sagemaker")
    found = jobs.wait(ran, "Failed")
    reason = "InternalServerError: the local endpoint ended while the job ran"
    assert found["FailureReason"] == reason
    eventually(lambda: gone(program))
    jobs.wait(waited, "Completed")
    assert "after all" in jobs.log(waited)
    # Logs of before are told again, and the model is where it was.
    eventually(lambda: "kept" in jobs.log(done))
    assert jobs.archive(done, "model.tar.gz") == {}


def test_an_endpoint_that_is_stopped_ends_its_job(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    name = jobs.start(WAITS)
    jobs.said(name, "ready")
    began = time.monotonic()
    own_endpoint.stop()
    assert time.monotonic() - began < 15
    assert list((own_endpoint.home / "work").iterdir()) == []
    own_endpoint.start()
    jobs.sagemaker = own_endpoint.client("sagemaker")
    assert jobs.describe(name)["FailureReason"].startswith(
        "InternalServerError: the local endpoint"
    )


@pytest.mark.slow
def test_a_program_that_does_not_listen_is_killed(tmp_path, own_endpoint):
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    name = jobs.start(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('pid', os.getpid(), flush=True); time.sleep(300)\n"
    )

    def pid() -> int | None:
        return next((int(w[4:]) for w in jobs.log(name) if w.startswith("pid ")), None)

    program = eventually(pid)
    began = time.monotonic()
    own_endpoint.stop()
    assert 9 < time.monotonic() - began < 25
    eventually(lambda: gone(program), 5)


def test_two_jobs_at_a_time_when_asked_for(tmp_path, own_endpoint):
    own_endpoint.environ["BYOC_LOCAL_JOBS"] = "2"
    own_endpoint.start()
    jobs = Jobs(own_endpoint, tmp_path)
    names = [jobs.start(WAITS) for _ in range(2)]
    for name in names:
        jobs.said(name, "ready")
        jobs.sagemaker.stop_training_job(TrainingJobName=name)
    for name in names:
        jobs.wait(name, "Stopped")


def test_a_thousand_jobs_are_listed_page_by_page(tmp_path, own_endpoint):
    home = Home(own_endpoint.home)
    home.prepare()
    store = Store(home.database)
    for number in range(1000):
        status = "Failed" if number % 10 == 0 else "Completed"
        document = {
            "TrainingJobName": f"old-{number:04}",
            "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{number}",
            "TrainingJobStatus": status,
            "SecondaryStatus": status,
            "HyperParameters": {str(n): "x" for n in range(30)},
            "_waiting": False,
        }
        store.create("training-job", f"old-{number:04}", document)
    store.close()
    own_endpoint.start()
    pages = own_endpoint.client("sagemaker").get_paginator("list_training_jobs")
    began = time.monotonic()
    found = [one for page in pages.paginate() for one in page["TrainingJobSummaries"]]
    assert time.monotonic() - began < 30
    assert [one["TrainingJobName"] for one in found] == [f"old-{n:04}" for n in range(999, -1, -1)]
    wanted = {"StatusEquals": "Failed", "NameContains": "OLD-09", "SortBy": "Name"}
    chosen = pages.paginate(SortOrder="Ascending", MaxResults=3, **wanted)
    names = [one["TrainingJobName"] for page in chosen for one in page["TrainingJobSummaries"]]
    assert names == [f"old-{n:04}" for n in range(900, 1000, 10)]


@own_mounts
def test_a_full_disk_fails_the_job_clearly(tmp_path, own_endpoint):
    """The endpoint's folder is a file system of 16 MiB."""
    own_endpoint.home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(own_endpoint.home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        own_endpoint.start()
        jobs = Jobs(own_endpoint, tmp_path)
        found = jobs.run("(model / 'w').write_bytes(os.urandom(10_000_000))", "Failed")
        assert found["FailureReason"].startswith("ClientError: Artifact upload failed:")
        assert "No space left on device" in found["FailureReason"]
        jobs.put(**{"big/1": os.urandom(7_000_000)})
        found = jobs.run(
            "", "Failed", InputDataConfig=[channel(f"s3://{BUCKET}/big/", n) for n in "ab"]
        )
        assert found["FailureReason"].startswith("ClientError: Data download failed:1 cannot be")
        jobs.run("", "Completed")
        own_endpoint.stop()
    finally:
        subprocess.run(["umount", "-l", str(own_endpoint.home)], check=False)
