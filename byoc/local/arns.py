"""Amazon resource names of the local account."""

from __future__ import annotations

#: moto's account, so that S3, ECR, STS and IAM agree with us.
ACCOUNT = "123456789012"


def arn(region: str, kind: str, name: str) -> str:
    """The name of a SageMaker resource, in its partition.

    Args:
        region: Such as ``eu-central-1``.
        kind: Such as ``training-job``.
        name: As the client gave it; ARNs have it in small letters.
    """
    return f"arn:{partition(region)}:sagemaker:{region}:{ACCOUNT}:{kind}/{name.lower()}"


def partition(region: str) -> str:
    """``aws``, ``aws-cn`` or ``aws-us-gov``."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"
