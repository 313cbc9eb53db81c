"""Training jobs through boto3, run by real `train` processes."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import tarfile

import pytest

from byoc.local.host_processes import namespaces
from tests.local.conftest import eventually
from tests.local.jobs import (
    BUCKET,
    OUTPUT,
    WAITS,
    channel,
    own_mounts,
    transitions,
)


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
        {"Name": "diverged", "Regex": r"diverged=(\S+)"},
        {"Name": "never", "Regex": r"never=(\S+)"},
    ]
    found = jobs.run(
        "print('loss=0.5 accuracy=1e-1;'); print('loss=0.25')\n"
        "print('diverged=7'); print('diverged=nan'); print('never=-inf')",
        algorithm={"MetricDefinitions": definitions},
    )
    values = {one["MetricName"]: one["Value"] for one in found["FinalMetricDataList"]}
    # NaN and infinity are no JSON, and would make the description none.
    assert values == pytest.approx({"loss": 0.25, "accuracy": 0.1, "diverged": 7})
    start, end = found["TrainingStartTime"], found["TrainingEndTime"]
    assert all(start <= one["Timestamp"] <= end for one in found["FinalMetricDataList"])


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
