"""Models: an image and an archive that fit each other and the instance, made known to SageMaker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import deployments, hosts, image_facts, kinds, settings, uploads
from byoc.errors import CombinationError, SettingsError
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.aws import Aws
    from byoc.deployments import Deployment, Variant
    from byoc.image_facts import Facts
    from byoc.report import Report


def cuda_of(aws: Aws, one: Variant) -> hosts.Cuda | None:
    """The CUDA of a variant's image, when known."""
    return completed(aws, aws.image_uri(one.image), image_facts.here(one.image)).cuda


def make_model(
    aws: Aws,
    deployment: Deployment,
    name: str,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> str:
    """Make the model of a deployment's one variant, and nothing else.

    Returns:
        Its name.

    Raises:
        SettingsError: Something is wrong or missing.
        ByocError: AWS refuses.
    """
    (one,) = deployment.variants
    data = archive(aws, deployment, one, may_create, report)
    create(aws, deployment, one, name, data, settings.role(aws, deployment.role))
    report.say(f"model     {name}")
    return name


def create(
    aws: Aws, deployment: Deployment, one: Variant, name: str, archive: str | None, role: str
) -> None:
    """``CreateModel`` for a variant.

    Raises:
        ByocError: AWS refuses.
    """
    container: dict[str, Any] = {"Image": aws.image_uri(one.image)}
    if archive:
        container["ModelDataUrl"] = archive
    if deployment.environment:
        container["Environment"] = dict(deployment.environment)
    request = {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": role}
    aws.call("sagemaker", "CreateModel", tagged(request, deployment))


def tagged(request: dict[str, Any], deployment: Deployment) -> dict[str, Any]:
    """The request with the deployment's tags."""
    if not deployment.tags:
        return request
    tags = [{"Key": key, "Value": value} for key, value in deployment.tags.items()]
    return {**request, "Tags": tags}


def fits(deployment: Deployment, one: Variant, facts: Facts) -> str | None:
    """The InferenceAmiVersion; raises where the image cannot start."""
    if deployment.serverless is not None:
        size = facts.compressed_bytes
        if size and size > deployments.SERVERLESS_IMAGE_BYTES:
            raise CombinationError(
                f"{one.image} has {size / 1e9:.1f} GB; a serverless endpoint takes at most 10 GB"
            )
        return None
    if facts.architecture:
        hosts.check(one.instance_type, facts.cuda, facts.architecture)
    return hosts.inference_ami(one.instance_type, facts.cuda, one.ami)


def completed(aws: Aws, image: str, facts: Facts) -> Facts:
    """What the registry says, and what only the engine knows."""
    if aws.local:
        return facts
    there = image_facts.in_registry(aws, image)
    if there.source == "nothing":
        return image_facts.Facts(facts.source, facts.labels, facts.architecture)
    return image_facts.Facts(
        there.source,
        there.labels or facts.labels,
        there.architecture or facts.architecture,
        there.digest,
        there.compressed_bytes,
    )


def cuda_words(facts: Facts) -> str:
    """Why an instance gets the system that it gets."""
    cuda = facts.cuda
    return f"CUDA {cuda.version} needs driver {cuda.minimum_driver}" if cuda else "you asked for it"


def archive(
    aws: Aws,
    deployment: Deployment,
    one: Variant,
    may_create: Callable[[str], bool],
    report: Report,
) -> str | None:
    """The address of the variant's model archive; None when the image brings its own model."""
    if one.job is not None:
        described = kinds.describe(aws, kinds.TRAINING, one.job)
        if aws.dry_run:
            return f"s3://<S3ModelArtifacts of {one.job}>/model.tar.gz"
        status = described["TrainingJobStatus"]
        if status not in ("Completed", "Stopped"):
            raise SettingsError(f"the training job {one.job} is {status} and has no model (yet)")
        artifacts = (described.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
        if not artifacts:
            raise SettingsError(f"the training job {one.job} ({status}) has left no model")
        return str(artifacts)
    if one.model_data is None or one.model_data.startswith("s3://"):
        return one.model_data
    bucket = settings.bucket(aws, deployment.bucket, may_create=may_create, report=report)
    file = Path(one.model_data).expanduser()
    return uploads.upload(aws, file, bucket, "models", title=file.name, report=report)
