"""Training and processing jobs in containers: names, mounts, the way to the endpoint, faults."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from byoc.local.host_containers import LABEL
from tests.local.conftest import ROLE, Endpoint, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker

BUCKET = "container-bucket"
IMAGE = "sagemaker-byoc-training:latest"
ECR = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{IMAGE}"
ENTRY = {"ContainerEntrypoint": ["python3", "-u", "/opt/ml/input/data/code/main.py"]}


class Jobs:
    """Jobs of an endpoint with the docker runner."""

    def __init__(self, endpoint: Endpoint, cli: str) -> None:
        self.endpoint, self.cli = endpoint, cli
        self.connect()
        self.s3.create_bucket(Bucket=BUCKET)
        self._count = 0

    def connect(self) -> None:
        self.sagemaker, self.s3 = self.endpoint.client("sagemaker"), self.endpoint.client("s3")

    def start(self, program: str, *, hosts: int = 1, **changes: Any) -> str:
        self._count += 1
        name = f"container-{self._count}-{os.getpid()}"
        key = f"code/{name}/main.py"
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=program.encode())
        code = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{key}"}
        algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}
        self.sagemaker.create_training_job(
            **{
                "TrainingJobName": name,
                "RoleArn": ROLE,
                "AlgorithmSpecification": {**algorithm, **changes.pop("algorithm", ENTRY)},
                "InputDataConfig": [
                    {"ChannelName": "code", "DataSource": {"S3DataSource": code}},
                    *changes.pop("channels", []),
                ],
                "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
                "ResourceConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": hosts,
                    "VolumeSizeInGB": 1,
                },
                "StoppingCondition": {"MaxRuntimeInSeconds": 120},
                **changes,
            }
        )
        return name

    def wait(self, name: str, status: str = "Completed") -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = self.sagemaker.describe_training_job(TrainingJobName=name)
            return None if found["TrainingJobStatus"] in ("InProgress", "Stopping") else found

        found: dict[str, Any] = eventually(ended, 90)
        told = (found.get("FailureReason"), self.log(name))
        assert found["TrainingJobStatus"] == status, told
        return found

    def log(self, name: str, host: str = "algo-1", kind: str = "TrainingJobs") -> list[str]:
        logs, group = self.endpoint.client("logs"), f"/aws/sagemaker/{kind}"
        try:
            streams = logs.describe_log_streams(
                logGroupName=group, logStreamNamePrefix=f"{name}/{host}"
            )["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            return []  # nothing has been said yet
        return [
            event["message"]
            for stream in streams
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]

    def containers(self) -> list[str]:
        label = f"label={LABEL}={self.endpoint.home}"
        words = [self.cli, "ps", "--all", "--quiet", "--filter", label]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return done.stdout.split()

    def engine(self, *words: str) -> None:
        subprocess.run([self.cli, *words], capture_output=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def cli(docker_cli: str) -> str:
    words = [docker_cli, "image", "inspect", IMAGE]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"the engine has no {IMAGE}; make build")
    return docker_cli


@pytest.fixture(scope="module")
def jobs(cli: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    endpoint = Endpoint(tmp_path_factory.mktemp("home"), runner="docker")
    endpoint.start()
    yield Jobs(endpoint, cli)
    endpoint.stop()


def test_train_of_the_image_runs_with_its_program_from_s3(jobs, tmp_path):
    (tmp_path / "main.py").write_text(
        "import os, pathlib\n"
        "pathlib.Path('/opt/ml/model/w').write_text('w')\n"
        "print('here', sorted(os.listdir('/opt/ml/input/data/code')))\n"
    )
    tar = ["tar", "-czf", "sourcedir.tar.gz", "main.py"]
    subprocess.run(tar, cwd=tmp_path, check=True)
    archive = (tmp_path / "sourcedir.tar.gz").read_bytes()
    jobs.s3.put_object(Bucket=BUCKET, Key="source/sourcedir.tar.gz", Body=archive)
    name = jobs.start(
        "",
        algorithm={"TrainingImage": ECR},
        HyperParameters={
            "sagemaker_program": '"main.py"',
            "sagemaker_submit_directory": json.dumps(f"s3://{BUCKET}/source/sourcedir.tar.gz"),
        },
    )
    jobs.wait(name)
    log = jobs.log(name)
    assert log[0] == f"byoc: runner docker: image {IMAGE}"
    assert "here ['main.py']" in log
    found = jobs.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"out/{name}")["Contents"]
    assert [one["Key"] for one in found] == [f"out/{name}/output/model.tar.gz"]
    eventually(lambda: not jobs.containers())


def test_hosts_reach_each_other_by_their_names(jobs):
    name = jobs.start(
        "import json, socket, time\n"
        "config = json.load(open('/opt/ml/input/config/resourceconfig.json'))\n"
        "me, hosts = config['current_host'], config['hosts']\n"
        "server = socket.create_server(('0.0.0.0', 5000))\n"
        "until = time.monotonic() + 30\n"
        "for host in hosts:\n"
        "    while True:\n"
        "        try: socket.create_connection((host, 5000), 1).close(); break\n"
        "        except OSError: time.sleep(0.1); assert time.monotonic() < until\n"
        "print(me, 'reached', hosts, config['network_interface_name'])\n"
        "time.sleep(2)\n",
        hosts=2,
    )
    jobs.wait(name)
    for host in ("algo-1", "algo-2"):
        assert f"{host} reached ['algo-1', 'algo-2'] eth0" in jobs.log(name, host)


def test_a_fastfile_channel_is_mounted_read_only(jobs):
    jobs.s3.put_object(Bucket=BUCKET, Key="fast/x", Body=b"1")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/fast/"}
    name = jobs.start(
        "path = '/opt/ml/input/data/fast/x'\n"
        "print(open(path).read())\n"
        "try: open(path, 'w')\n"
        "except OSError as error: print('refused', error.errno)\n",
        channels=[
            {
                "ChannelName": "fast",
                "DataSource": {"S3DataSource": source},
                "InputMode": "FastFile",
            }
        ],
    )
    jobs.wait(name)
    assert "refused 30" in jobs.log(name)


def test_an_isolated_job_reaches_nothing(jobs):
    name = jobs.start(
        "import os, socket\n"
        "print('told', os.environ.get('AWS_ENDPOINT_URL'), os.environ['TRAINING_JOB_NAME'])\n"
        "try: socket.create_connection(('192.0.2.1', 80), 3)\n"
        "except OSError as error: print('refused', error.errno)\n",
        EnableNetworkIsolation=True,
    )
    jobs.wait(name)
    assert f"told None {name}" in jobs.log(name)
    # Unreachable, or no answer at all: it depends on the host.
    assert any(line.startswith("refused ") for line in jobs.log(name))


def test_a_stop_is_sigterm_to_the_program(jobs):
    name = jobs.start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(0)))\n"
        "print('ready'); time.sleep(100)\n"
    )
    eventually(lambda: "ready" in jobs.log(name))
    jobs.sagemaker.stop_training_job(TrainingJobName=name)
    jobs.wait(name, "Stopped")
    assert "saved" in jobs.log(name)


READY = "import time; print('ready'); time.sleep(100)"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("kill",), "was killed from outside, or a process in it for want of memory"),
        (("rm", "--force"), "from outside"),
    ],
)
def test_a_container_that_is_ended_from_outside_fails_the_job(jobs, words, reason):
    name = jobs.start(READY)
    eventually(lambda: "ready" in jobs.log(name))
    jobs.engine(*words, *jobs.containers())
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith("AlgorithmError: the container was ")
    assert reason in found["FailureReason"]
    assert found["FailureReason"].endswith(", exit code: 137")


def test_a_program_that_the_image_does_not_have_fails_the_job(jobs):
    name = jobs.start("", algorithm={"ContainerEntrypoint": ["no-such-program"]})
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith("ClientError: the container of")
    assert "no-such-program" in found["FailureReason"]


def test_a_processing_job_runs_in_its_container(jobs):
    script = (
        "import pathlib\n"
        "text = pathlib.Path('/opt/ml/processing/input/main.py').read_text()\n"
        "pathlib.Path('/opt/ml/processing/out/length').write_text(str(len(text)))\n"
    )
    jobs.s3.put_object(Bucket=BUCKET, Key="process/main.py", Body=script.encode())
    name = f"processing-{os.getpid()}"
    jobs.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=ROLE,
        AppSpecification={
            "ImageUri": IMAGE,
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/main.py"],
        },
        ProcessingResources={
            "ClusterConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            }
        },
        ProcessingInputs=[
            {
                "InputName": "code",
                "S3Input": {
                    "S3Uri": f"s3://{BUCKET}/process/",
                    "LocalPath": "/opt/ml/processing/input",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {
                        "S3Uri": f"s3://{BUCKET}/processed",
                        "LocalPath": "/opt/ml/processing/out",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    )

    def ended() -> str | None:
        found = jobs.sagemaker.describe_processing_job(ProcessingJobName=name)
        status: str = found["ProcessingJobStatus"]
        return None if status == "InProgress" else status

    assert eventually(ended, 60) == "Completed", jobs.log(name, kind="ProcessingJobs")
    body = jobs.s3.get_object(Bucket=BUCKET, Key="processed/length")["Body"].read()
    assert int(body) == len(script)


def test_a_killed_endpoint_leaves_no_container(cli, own_endpoint):
    own_endpoint.runner = "docker"
    own_endpoint.start()
    jobs = Jobs(own_endpoint, cli)
    name = jobs.start(READY)
    eventually(lambda: "ready" in jobs.log(name))
    own_endpoint.kill()
    assert jobs.containers()
    own_endpoint.start()
    jobs.connect()
    found = jobs.wait(name, "Failed")
    assert found["FailureReason"].startswith("InternalServerError: the local endpoint ended")
    eventually(lambda: not jobs.containers())


class Engine:
    """A way to the engine that can be cut."""

    def __init__(self, path: Path) -> None:
        real = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not real.startswith("unix://"):
            pytest.skip("the engine is not on this machine")
        self._real = real.removeprefix("unix://")
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                other = socket.socket(socket.AF_UNIX)
                other.connect(self._real)
                self._sockets += [one, other]
                for source, target in ((one, other), (other, one)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_an_engine_that_ends_while_a_job_runs_fails_it(cli, tmp_path_factory, own_endpoint):
    path = tmp_path_factory.mktemp("s") / "engine.sock"
    engine = Engine(path)
    own_endpoint.runner = "docker"
    own_endpoint.environ["DOCKER_HOST"] = f"unix://{path}"
    own_endpoint.start()
    jobs = Jobs(own_endpoint, cli)
    name = jobs.start(READY)
    eventually(lambda: "ready" in jobs.log(name))
    left = jobs.containers()
    path.unlink()
    engine.stop()
    try:
        found = jobs.wait(name, "Failed")
    finally:
        jobs.engine("rm", "--force", *left)
        label = f"label={LABEL}={own_endpoint.home}"
        jobs.engine("network", "prune", "--force", "--filter", label)
    assert found["FailureReason"].startswith("InternalServerError: the Docker engine ended")
    found = jobs.wait(jobs.start(READY), "Failed")
    assert "no Docker engine answers" in found["FailureReason"]
