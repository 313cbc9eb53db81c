"""The words of the store for each kind of resource, and of AWS for what is missing or taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of resource.

    Attributes:
        store: Its name in the store.
        arn: Its name in ARNs.
        name: The member of requests and documents that is its name.
        arn_member: The member that is its ARN.
        words: AWS's words for it.
    """

    store: str
    arn: str
    name: str
    arn_member: str
    words: str


TRAINING_JOB = Kind(
    "training-job", "training-job", "TrainingJobName", "TrainingJobArn", "training job"
)
PROCESSING_JOB = Kind(
    "processing-job", "processing-job", "ProcessingJobName", "ProcessingJobArn", "processing job"
)
TRANSFORM_JOB = Kind(
    "transform-job", "transform-job", "TransformJobName", "TransformJobArn", "transform job"
)
MODEL = Kind("model", "model", "ModelName", "ModelArn", "model")
ENDPOINT_CONFIG = Kind(
    "endpoint-config", "endpoint-config", "EndpointConfigName", "EndpointConfigArn",
    "endpoint configuration",
)  # fmt: skip
ENDPOINT = Kind("endpoint", "endpoint", "EndpointName", "EndpointArn", "endpoint")
KINDS = (TRAINING_JOB, PROCESSING_JOB, TRANSFORM_JOB, MODEL, ENDPOINT_CONFIG, ENDPOINT)
JOBS = (TRAINING_JOB, PROCESSING_JOB, TRANSFORM_JOB)
