"""Batch transform jobs: a model over the objects of a prefix."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import hosts, models, settings, uploads, words
from byoc.deployments import IMAGE, INSTANCE_TYPE, Deployment, Variant
from byoc.deployments import check as check_deployment
from byoc.errors import CombinationError, SettingsError
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc.aws import Aws
    from byoc.report import Report

#: A request's body in MB, times the requests at a time (contract section 11).
MOST_MB = 100
#: Drivers of TransformAmiVersion, the oldest first; the default is 470 on g4dn and g5, else 535.
AMI_DRIVERS = {"al2-ami-sagemaker-batch-gpu-470": 470, "al2-ami-sagemaker-batch-gpu-535": 535}


@dataclass(frozen=True)
class Transform:
    """A batch transform job to be.

    Attributes:
        input: A folder or file here, or ``s3://…``.
        output: ``s3://…``; None: in the bucket.
        name: Default: one that is not taken.
        model: A model that exists; else one is made of ``job`` or ``model_data``, and ``image``.
        job: The training job that made the model.
        model_data: ``s3://….tar.gz``, or an archive here.
        image: A full name, or one in this account's registry.
        role: An ARN or a name; found when None.
        bucket: Found when None.
        content_type: Of the input.
        accept: Of the output.
        split: ``None`` or ``Line``: what a record is.
        strategy: ``MultiRecord`` or ``SingleRecord``; None: the container's or SageMaker's choice.
        payload_mb: Of a request, 0 to 100; None: as above.
        concurrency: Requests at a time and instance; None: as above.
        instance_type: Such as ``ml.m5.large``.
        instance_count: Of them.
        environment: Variables of the container.
    """

    input: str
    output: str | None = None
    name: str | None = None
    model: str | None = None
    job: str | None = None
    model_data: str | None = None
    image: str = IMAGE
    role: str | None = None
    bucket: str | None = None
    content_type: str = "application/json"
    accept: str | None = None
    split: str = "None"
    strategy: str | None = None
    payload_mb: int | None = None
    concurrency: int | None = None
    instance_type: str = INSTANCE_TYPE
    instance_count: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


def transform(
    aws: Aws,
    wish: Transform,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> dict[str, Any]:
    """Start a batch transform job; `jobs.wait` waits for it.

    Returns:
        The request of the job, as it was sent.

    Raises:
        CombinationError: The image cannot start on that instance.
        SettingsError: Something is wrong or missing.
        ByocError: AWS refuses.
    """
    _check(wish)
    name = words.checked_name(wish.name or words.fresh_name(wish.model or wish.job or "transform"))
    model, ami = wish.model, None
    if model is None:
        variant = Variant(job=wish.job, model_data=wish.model_data, image=wish.image)
        deployment = Deployment(
            [variant], name=name, role=wish.role, bucket=wish.bucket, environment=wish.environment
        )
        check_deployment(deployment)
        ami = batch_ami(wish.instance_type, models.cuda_of(aws, variant))
        model = models.make_model(aws, deployment, name, may_create=may_create, report=report)
    bucket = ""
    if wish.output is None or not wish.input.startswith("s3://"):
        bucket = settings.bucket(aws, wish.bucket, may_create=may_create, report=report)
    source = wish.input
    if not source.startswith("s3://"):
        path = Path(source).expanduser()
        source = uploads.upload(aws, path, bucket, "data", title="input", report=report)
    request: dict[str, Any] = {
        "TransformJobName": name,
        "ModelName": model,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": wish.content_type,
            "SplitType": wish.split,
        },
        "TransformOutput": {
            "S3OutputPath": wish.output or f"s3://{bucket}/{uploads.PREFIX}/transform/{name}",
            "AssembleWith": "Line" if wish.split == "Line" else "None",
        },
        "TransformResources": {
            "InstanceType": wish.instance_type,
            "InstanceCount": wish.instance_count,
        },
    }
    if ami:
        request["TransformResources"]["TransformAmiVersion"] = ami
    if wish.accept:
        request["TransformOutput"]["Accept"] = wish.accept
    given = {
        "BatchStrategy": wish.strategy,
        "MaxPayloadInMB": wish.payload_mb,
        "MaxConcurrentTransforms": wish.concurrency,
    }
    request |= {key: value for key, value in given.items() if value is not None}
    aws.call("sagemaker", "CreateTransformJob", request)
    return request


def batch_ami(instance_type: str, cuda: hosts.Cuda | None) -> str | None:
    """The TransformAmiVersion that the image needs there; None where the default will do.

    Raises:
        CombinationError: The image cannot start there.
    """
    hosts.check(instance_type, cuda)
    if cuda is None or not hosts.has_gpu(instance_type):
        return None
    default = hosts.DEFAULT_DRIVERS.get(hosts.family(instance_type), 0)
    if default >= cuda.minimum_driver:
        return None
    for ami, driver in AMI_DRIVERS.items():
        if driver >= cuda.minimum_driver:
            return ami
    raise CombinationError(
        f"CUDA {cuda.version} needs driver {cuda.minimum_driver}, and batch transform has 535 at "
        f"most on {instance_type}; build with make build LANE=cu128, or use a CPU"
    )


def _check(wish: Transform) -> None:
    hosts.check(wish.instance_type, None)
    hosts.known(wish.instance_type, "transforms")
    if wish.model and (wish.job or wish.model_data):
        raise SettingsError("give --model, or the --job or --model-data that one is made of")
    payload = 6 if wish.payload_mb is None else wish.payload_mb
    if not 0 <= payload <= MOST_MB or payload * (wish.concurrency or 1) > MOST_MB:
        raise SettingsError(
            f"--payload times --concurrency is {payload * (wish.concurrency or 1)} MB; "
            f"at most {MOST_MB}"
        )
    if not wish.input.startswith("s3://"):
        uploads.files(Path(wish.input).expanduser())
