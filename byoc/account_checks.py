"""What `byoc doctor` asks the account. Every check only reads."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

from byoc import image_facts, settings
from byoc.errors import ByocError, NotFoundError
from byoc.findings import NOTE, OK, WRONG, Finding
from byoc.lanes import KINDS
from byoc.partitions import registry as registry_host

if TYPE_CHECKING:
    from byoc.aws import Aws
    from byoc.findings import Patient

#: What pulling an image, reading data and writing logs takes (contract section 15).
ROLE_ACTIONS = (
    "ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer",
    "s3:GetObject", "s3:PutObject", "logs:CreateLogStream", "logs:PutLogEvents",
)  # fmt: skip


def credentials(patient: Patient) -> list[Finding]:
    """Who asks, and where."""
    if patient.aws is None:
        seen, _, fix = patient.why.partition("; ")
        return [Finding("AWS", WRONG, seen, fix)]
    identity = patient.aws.call("sts", "GetCallerIdentity")
    aws = patient.aws
    return [
        Finding("region", OK, f"{aws.region} ({aws.partition.name}), {aws.where}"),
        Finding("credentials", OK, f"{identity['Arn']}, account {identity['Account']}"),
    ]


def role(patient: Patient) -> list[Finding]:
    """Whether SageMaker may assume the execution role, and what that may do."""
    if (aws := _way(patient)) is None:
        return []
    arn = settings.role(aws, patient.role)
    if aws.local:
        return [Finding("role", OK, f"{arn} (the local endpoint takes any)")]
    name = arn.rpartition("/")[2]
    try:
        role = aws.call("iam", "GetRole", {"RoleName": name})["Role"]
    except NotFoundError:
        return [Finding("role", WRONG, f"{arn} is not there", "give --role, or make the role")]
    except ByocError as error:
        return [Finding("role", NOTE, f"{arn} could not be looked at ({error})")]
    trust = role["AssumeRolePolicyDocument"]
    trust = trust if isinstance(trust, str) else json.dumps(trust)
    if "sagemaker." not in urllib.parse.unquote(trust):
        fix = "add the principal sagemaker.amazonaws.com to its trust policy"
        return [Finding("role", WRONG, f"SageMaker may not assume {arn}", fix)]
    return [_permissions(aws, arn)]


def _permissions(aws: Aws, arn: str) -> Finding:
    request = {"PolicySourceArn": arn, "ActionNames": [*ROLE_ACTIONS]}
    try:
        answer = aws.call("iam", "SimulatePrincipalPolicy", request)
    except ByocError:
        return Finding("role", NOTE, f"{arn}; what it may do could not be looked at")
    denied = [
        one["EvalActionName"]
        for one in answer["EvaluationResults"]
        if one["EvalDecision"] != "allowed"
    ]
    if denied:
        fix = "attach AmazonSageMakerFullAccess, or a policy with these on the bucket and registry"
        return Finding("role", WRONG, f"{arn} may not {', '.join(denied)}", fix)
    return Finding("role", OK, arn)


def bucket(patient: Patient) -> list[Finding]:
    """Whether the bucket is there, in the right region."""
    if (aws := _way(patient)) is None:
        return []
    name = patient.bucket or settings.bucket_name(aws)
    try:
        answer = aws.call("s3", "HeadBucket", {"Bucket": name})
    except NotFoundError:
        fix = "byoc train and byoc deploy make it when asked, or with --yes"
        return [Finding("bucket", NOTE, f"{name} is not there yet", fix)]
    region = answer.get("BucketRegion") or aws.region
    if region != aws.region:
        fix = f"use one in {aws.region}: --bucket, or bucket = … in byoc.toml"
        return [Finding("bucket", WRONG, f"{name} is in {region}", fix)]
    return [Finding("bucket", OK, f"s3://{name}")]


def registry(patient: Patient) -> list[Finding]:
    """The two images in ECR."""
    if (aws := _way(patient)) is None:
        return []
    found = []
    for kind in KINDS:
        subject, name = f"ECR {kind}", f"sagemaker-byoc-{kind}"
        uri = f"{registry_host(aws.account, aws.region)}/{name}:latest"
        if aws.find("ecr", "DescribeRepositories", {"repositoryNames": [name]}) is None:
            found.append(Finding(subject, NOTE, f"no repository {name}", "byoc push makes it"))
            continue
        if aws.local:
            words = f"{uri} (its image is the engine's)"
            found.append(Finding(subject, OK, words))
            continue
        facts = image_facts.in_registry(aws, uri)
        if facts.source == "nothing":
            words = f"{name} has no image latest with Docker's manifest (schema 2)"
            found.append(Finding(subject, NOTE, words, "byoc push"))
        elif facts.architecture not in ("amd64", None):
            words = f"{uri} is for linux/{facts.architecture}"
            found.append(Finding(subject, WRONG, words, "make build push"))
        else:
            cuda = f", CUDA {facts.cuda.version}" if facts.cuda else ""
            size = f", {facts.compressed_bytes / 1e9:.2f} GB" if facts.compressed_bytes else ""
            found.append(Finding(subject, OK, f"{uri}{cuda}{size}, {facts.digest}"))
    return found


def quotas(patient: Patient) -> list[Finding]:
    """Whether the instance types may be used at all."""
    aws = _way(patient)
    if aws is None or aws.local:
        return []
    wanted = {
        f"{patient.training_type} for training job usage": None,
        f"{patient.endpoint_type} for endpoint usage": None,
    }
    values: dict[str, Any] = dict(wanted)
    try:
        request = {"ServiceCode": "sagemaker", "MaxResults": 100}
        for quota in aws.pages("service-quotas", "ListServiceQuotas", "Quotas", request):
            if quota["QuotaName"] in values:
                values[quota["QuotaName"]] = quota["Value"]
                if None not in values.values():
                    break
    except ByocError as error:
        return [Finding("quotas", NOTE, f"could not be looked at ({error})")]
    found = []
    for name, value in values.items():
        if value is None:
            found.append(Finding("quota", NOTE, f"{name}: not in the list"))
        elif value < 1:
            fix = "ask for more in the Service Quotas console"
            found.append(Finding("quota", WRONG, f"{name}: {value:.0f}", fix))
        else:
            found.append(Finding("quota", OK, f"{name}: {value:.0f}"))
    return found


def _way(patient: Patient) -> Aws | None:
    """The account, unless it does not let us in: that is one finding, not five."""
    if patient.aws is None:
        return None
    try:
        _ = patient.aws.account
    except ByocError:
        return None
    return patient.aws
