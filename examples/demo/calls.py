"""The calls of the story: boto3 alone, and word for word those that run it on AWS."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from examples.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

JOB, ENDPOINT = "mnist-demo", "digits"
INSTANCE = "ml.m5.large"
JOBS_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
#: Seconds between two looks at what is being made. On AWS, ask every ten.
PAUSE = 0.1


@dataclass(frozen=True)
class Answer:
    """What the endpoint said.

    Attributes:
        body: Of the answer.
        variant: The production variant that gave it.
        milliseconds: From the call to its end, at the client.
    """

    body: bytes
    variant: str
    milliseconds: float


class Calls:
    """SageMaker, S3 and CloudWatch Logs, as one story needs them.

    Args:
        exports: ``AWS_ENDPOINT_URL`` and the rest of what ``byoc local env`` prints.
    """

    def __init__(self, exports: Mapping[str, str]) -> None:
        session = boto3.Session(
            exports["AWS_ACCESS_KEY_ID"],
            exports["AWS_SECRET_ACCESS_KEY"],
            region_name=exports["AWS_REGION"],
        )
        made: Any = session.client  # its overloads want literal names
        # Without proxies, as the endpoint is on this machine; on AWS, leave them out.
        config = Config(read_timeout=70, proxies={})
        self.s3, self.sagemaker, self.logs, sts, self.runtime = (
            made(name, endpoint_url=exports["AWS_ENDPOINT_URL"], config=config)
            for name in ("s3", "sagemaker", "logs", "sts", "sagemaker-runtime")
        )
        account, region = sts.get_caller_identity()["Account"], exports["AWS_REGION"]
        self.registry = f"{account}.dkr.ecr.{region}.amazonaws.com"
        self.role = f"arn:aws:iam::{account}:role/sagemaker-execution"
        self.bucket = f"sagemaker-{region}-{account}"

    def upload(self, folder: Path) -> str:
        """Put the files of a channel into S3; their prefix."""
        region = self.s3.meta.region_name
        if region == "us-east-1":  # the one that may not be named
            self.s3.create_bucket(Bucket=self.bucket)
        else:
            place = {"LocationConstraint": region}
            self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration=place)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.s3.upload_file(str(path), self.bucket, f"digits/{path.relative_to(folder)}")
        return f"s3://{self.bucket}/digits"

    def train(self, channel: str, hyperparameters: Mapping[str, str]) -> None:
        """``CreateTrainingJob``; returns at once."""
        self.sagemaker.create_training_job(
            TrainingJobName=JOB,
            RoleArn=self.role,
            AlgorithmSpecification={
                "TrainingImage": f"{self.registry}/sagemaker-byoc-training:latest",
                "TrainingInputMode": "File",
            },
            HyperParameters=dict(hyperparameters),
            InputDataConfig=[
                {
                    "ChannelName": "training",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": channel,
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
            ],
            OutputDataConfig={"S3OutputPath": f"s3://{self.bucket}/output"},
            ResourceConfig={
                "InstanceType": INSTANCE,
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            StoppingCondition={"MaxRuntimeInSeconds": 3600},
            # On a machine that does other things as well, threads that spin while they wait for
            # each other slow an epoch down threefold.
            Environment={"OMP_WAIT_POLICY": "PASSIVE"},
        )

    def follow_job(self, on_state: Callable[[str], None], on_line: Callable[[str], None]) -> None:
        """Tell what becomes of the job until it ends.

        Raises:
            DemoError: It did not complete.
        """
        lines, seen = Lines(self.logs, JOBS_LOG_GROUP, f"{JOB}/"), 0
        while True:
            job = self.sagemaker.describe_training_job(TrainingJobName=JOB)
            for line in lines.new():  # read after the status: with the last one comes all
                on_line(line)
            for transition in job["SecondaryStatusTransitions"][seen:]:
                on_state(transition["Status"])
                seen += 1
            if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
                break
            time.sleep(PAUSE)
        if job["TrainingJobStatus"] != "Completed":
            reason = " ".join(job.get("FailureReason", "").split())
            raise DemoError(
                f"the training job is {job['TrainingJobStatus']}: {reason}", "see train.log"
            )

    def download(self, name: str, target: Path) -> None:
        """Fetch ``model.tar.gz`` or ``output.tar.gz`` of the job."""
        self.s3.download_file(self.bucket, f"output/{JOB}/output/{name}", str(target))

    def deploy(self) -> None:
        """``CreateModel``, ``CreateEndpointConfig``, ``CreateEndpoint``; returns at once."""
        job = self.sagemaker.describe_training_job(TrainingJobName=JOB)
        self.sagemaker.create_model(
            ModelName=ENDPOINT,
            ExecutionRoleArn=self.role,
            PrimaryContainer={
                "Image": f"{self.registry}/sagemaker-byoc-inference:latest",
                "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"],
            },
        )
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=ENDPOINT,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": ENDPOINT,
                    "InstanceType": INSTANCE,
                    "InitialInstanceCount": 1,
                }
            ],
        )
        self.sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)

    def endpoint_lines(self) -> Lines:
        """The log of the endpoint's containers."""
        return Lines(self.logs, f"/aws/sagemaker/Endpoints/{ENDPOINT}")

    def follow_endpoint(
        self, lines: Lines, on_state: Callable[[str], None], on_line: Callable[[str], None]
    ) -> None:
        """Tell what becomes of the endpoint until it serves.

        Raises:
            DemoError: It does not.
        """
        told = ""
        while True:
            endpoint = self.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
            for line in lines.new():
                on_line(line)
            if endpoint["EndpointStatus"] != told:
                told = endpoint["EndpointStatus"]
                on_state(told)
            if told != "Creating":
                break
            time.sleep(PAUSE)
        if told != "InService":
            reason = " ".join(endpoint.get("FailureReason", "").split())
            raise DemoError(f"the endpoint is {told}: {reason}", "see serve.log")

    def invoke(self, body: bytes) -> Answer:
        """``InvokeEndpoint`` with a JSON body.

        Raises:
            DemoError: The model does not answer with 200.
        """
        started = time.monotonic()
        try:
            answer = self.runtime.invoke_endpoint(
                EndpointName=ENDPOINT,
                ContentType="application/json",
                Accept="application/json",
                Body=body,
            )
        except ClientError as error:
            raise DemoError(str(error), "see serve.log") from error
        content = answer["Body"].read()
        milliseconds = 1000 * (time.monotonic() - started)
        return Answer(content, answer["InvokedProductionVariant"], milliseconds)

    def delete(self) -> None:
        """Delete the endpoint, its configuration and its model, in this order."""
        self.sagemaker.delete_endpoint(EndpointName=ENDPOINT)
        self.sagemaker.delete_endpoint_config(EndpointConfigName=ENDPOINT)
        self.sagemaker.delete_model(ModelName=ENDPOINT)


class Lines:
    """The lines of a log group, read onwards with each call of `new`.

    Args:
        logs: A client of CloudWatch Logs.
        group: The group; it need not be there yet.
        prefix: Of the names of its streams.
    """

    def __init__(self, logs: Any, group: str, prefix: str = "") -> None:
        self._logs, self._group = logs, group
        self._filter = {"logStreamNamePrefix": prefix} if prefix else {}
        self._tokens: dict[str, dict[str, str]] = {}

    def new(self) -> Iterator[str]:
        """What has come since the last call."""
        try:
            streams = self._logs.describe_log_streams(logGroupName=self._group, **self._filter)
        except self._logs.exceptions.ResourceNotFoundException:
            return
        for stream in streams["logStreams"]:
            name = stream["logStreamName"]
            found = self._logs.get_log_events(
                logGroupName=self._group,
                logStreamName=name,
                startFromHead=True,
                **self._tokens.get(name, {}),
            )
            self._tokens[name] = {"nextToken": found["nextForwardToken"]}
            for event in found["events"]:
                yield event["message"]
