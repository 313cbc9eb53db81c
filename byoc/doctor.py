"""A look at this machine and at the account: what is well, what is not, and how to mend it.

Every check only reads. They run side by side and have ten seconds together; what has not answered
by then is said to have not answered.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import image_facts, settings
from byoc.aws import Aws  # noqa: TC001 - of a dataclass
from byoc.buildkit import NEED_BYTES
from byoc.deployments import INSTANCE_TYPE as ENDPOINT_TYPE
from byoc.errors import ByocError, NotFoundError
from byoc.jobs import INSTANCE_TYPE as TRAINING_TYPE
from byoc.lanes import KINDS
from byoc.partitions import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK, NOTE, WRONG = "ok", "note", "wrong"
#: For all checks together.
SECONDS = 9.0
#: What pulling an image, reading data and writing logs takes (contract section 15).
ROLE_ACTIONS = (
    "ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer",
    "s3:GetObject", "s3:PutObject", "logs:CreateLogStream", "logs:PutLogEvents",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        subject: What was looked at.
        state: ``ok``, ``note`` (nothing to mend, or nothing that could be looked at) or ``wrong``.
        words: What was seen.
        fix: What to do; empty when nothing.
    """

    subject: str
    state: str
    words: str
    fix: str = ""


@dataclass(frozen=True)
class Patient:
    """What is examined.

    Attributes:
        aws: The account; None when there is no way to it.
        why: Why there is none.
        role: As given by the user.
        bucket: As given by the user.
        training_type: The instance type whose quota for training is looked at.
        endpoint_type: And for endpoints.
    """

    aws: Aws | None
    why: str = ""
    role: str | None = None
    bucket: str | None = None
    training_type: str = TRAINING_TYPE
    endpoint_type: str = ENDPOINT_TYPE


def examine(patient: Patient, seconds: float = SECONDS) -> Iterator[Finding]:
    """Run all checks; their findings come in a fixed order, as soon as they can.

    Args:
        patient: What is examined.
        seconds: For all together.
    """
    found: dict[str, list[Finding]] = {}
    done = {name: threading.Event() for name in CHECKS}

    def run(name: str, check: Callable[[Patient], list[Finding]]) -> None:
        try:
            found[name] = check(patient)
        except ByocError as error:
            seen, _, fix = str(error).partition("; ")
            found[name] = [Finding(name, WRONG, seen, fix)]
        except Exception as error:  # noqa: BLE001 - one check's fault is not the others'
            found[name] = [
                Finding(name, NOTE, f"could not be looked at ({' '.join(str(error).split())})")
            ]
        done[name].set()

    for name, check in CHECKS.items():
        threading.Thread(target=run, args=(name, check), daemon=True).start()
    until = time.monotonic() + seconds
    for name in CHECKS:
        if done[name].wait(max(0.0, until - time.monotonic())):
            yield from found[name]
        else:
            yield Finding(name, NOTE, f"no answer within {seconds:.0f} s", "check the network")


def _engine(_: Patient) -> list[Finding]:
    client = image_facts.engine(3)
    if client is None:
        fix = "systemctl start docker (or apt-get install -y docker.io); byoc local runs without"
        return [Finding("engine", WRONG, "no Docker engine answers", fix)]
    try:
        version = client.version()
    finally:
        client.close()
    words = f"Docker {version.get('Version')}, {version.get('Os')}/{version.get('Arch')}"
    if version.get("Arch") not in ("amd64", "x86_64"):
        fix = "images are built for linux/amd64 all the same, slowly; better on such a machine"
        return [Finding("engine", NOTE, words, fix)]
    return [Finding("engine", OK, words)]


def _gpu(__: Patient) -> list[Finding]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return [Finding("GPU", NOTE, "none here; SageMaker's instances bring their own")]
    done = subprocess.run(
        [program, "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=6, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        return [Finding("GPU", WRONG, f"nvidia-smi fails: {said[0]}", "install the driver again")]
    name, _, driver = lines[0].partition(", ")
    branch = int(driver.split(".")[0]) if driver.split(".")[0].isdigit() else 0
    words = f"{len(lines)} x {name}, driver {driver}"
    if branch < 525:
        return [
            Finding("GPU", WRONG, words, "CUDA 12 needs driver 525 or newer, CUDA 13 needs 580")
        ]
    return [Finding("GPU", OK, words)]


def _disk(_: Patient) -> list[Finding]:
    folder = next(
        path for path in (Path("/var/lib/docker"), Path.home(), Path("/")) if path.is_dir()
    )
    free, needed = shutil.disk_usage(folder).free, max(NEED_BYTES.values())
    words = f"{free / 1e9:.0f} GB free in {folder}"
    if free < needed:
        fix = f"a build may need {needed / 1e9:.0f} GB: docker image prune, docker builder prune"
        return [Finding("disk", WRONG, words, fix)]
    return [Finding("disk", OK, words)]


def _images(_: Patient) -> list[Finding]:
    found = []
    for kind in KINDS:
        name = f"sagemaker-byoc-{kind}:latest"
        facts = image_facts.here(name)
        if facts.source != "engine":
            found.append(Finding(f"image {kind}", NOTE, f"{name} is not here", "make build"))
        elif facts.architecture != "amd64":
            words = (
                f"{name} is for linux/{facts.architecture}: it would end with 'exec format error'"
            )
            found.append(Finding(f"image {kind}", WRONG, words, "make build"))
        elif facts.cuda is None:
            words = f"{name} says nothing about its CUDA"
            found.append(Finding(f"image {kind}", WRONG, words, "build it with make build"))
        else:
            cuda = facts.cuda
            words = (
                f"{name}: linux/amd64, CUDA {cuda.version}, driver {cuda.minimum_driver} or newer"
            )
            found.append(Finding(f"image {kind}", OK, words))
    return found


def _credentials(patient: Patient) -> list[Finding]:
    if patient.aws is None:
        seen, _, fix = patient.why.partition("; ")
        return [Finding("AWS", WRONG, seen, fix)]
    identity = patient.aws.call("sts", "GetCallerIdentity")
    aws = patient.aws
    return [
        Finding("region", OK, f"{aws.region} ({aws.partition.name}), {aws.where}"),
        Finding("credentials", OK, f"{identity['Arn']}, account {identity['Account']}"),
    ]


def _role(patient: Patient) -> list[Finding]:
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


def _bucket(patient: Patient) -> list[Finding]:
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


def _registry(patient: Patient) -> list[Finding]:
    if (aws := _way(patient)) is None:
        return []
    found = []
    for kind in KINDS:
        subject, name = f"ECR {kind}", f"sagemaker-byoc-{kind}"
        uri = f"{registry(aws.account, aws.region)}/{name}:latest"
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


def _quotas(patient: Patient) -> list[Finding]:
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


CHECKS: dict[str, Callable[[Patient], list[Finding]]] = {
    "engine": _engine,
    "GPU": _gpu,
    "disk": _disk,
    "images": _images,
    "credentials": _credentials,
    "role": _role,
    "bucket": _bucket,
    "ECR": _registry,
    "quotas": _quotas,
}
