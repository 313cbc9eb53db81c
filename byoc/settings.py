"""Role, region and bucket: found where they usually stand, or asked for in clear words.

The order: what is given, the environment, ``byoc.toml`` here, ``~/.config/byoc/config.toml``
(``BYOC_CONFIG`` names another file), and what the account has under its usual name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc import toml_file
from byoc.aws import Aws, on_loopback
from byoc.aws_errors import DENIED, code_of
from byoc.errors import CredentialsError, NotFoundError, RequestError, SettingsError
from byoc.report import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc.report import Report

ROLE_ARN = re.compile(r"arn:(aws[a-z-]*):iam::\d{12}:role/.+")
#: Names that SageMaker's own pages and consoles give to execution roles.
USUAL_ROLES = ("AmazonSageMaker-ExecutionRole", "SageMakerExecutionRole", "sagemaker-byoc")
#: The local endpoint looks at a role's form only.
LOCAL_ROLE = "arn:aws:iam::123456789012:role/byoc-local"
UNKNOWN_ROLE = "<execution role of the account>"


def config_file() -> Path | None:
    """The configuration file; None when there is none."""
    named = os.environ.get("BYOC_CONFIG")
    places = [Path(named)] if named else [
        Path("byoc.toml"), Path("~/.config/byoc/config.toml").expanduser()
    ]  # fmt: skip
    return next((path for path in places if named or path.is_file()), None)


def config() -> dict[str, Any]:
    """What the configuration file says; nothing when there is none.

    Raises:
        SettingsError: There is one, and it is wrong.
    """
    path = config_file()
    return {} if path is None else toml_file.read(path)


def connect(
    region: str | None = None,
    *,
    profile: str | None = None,
    endpoint_url: str | None = None,
    dry_run: bool = False,
    impatient: bool = False,
) -> Aws:
    """A way to AWS, with region and profile from the configuration file when not given.

    The arguments are those of `Aws`.

    Raises:
        SettingsError: No region is set anywhere, or a file is wrong.
        CredentialsError: There is no such profile.
    """
    written = config()
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    # A profile that is given outright wins over keys in the environment, also in botocore. That of
    # the file is a default like the others: the environment stands above it, and so does the local
    # endpoint, whose keys are not the account's.
    named = any(
        os.environ.get(name) for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID")
    )
    if not (profile or named or on_loopback(endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))):
        profile = written.get("profile")
    return Aws(
        region or written.get("region"),
        profile=profile,
        endpoint_url=endpoint_url,
        dry_run=dry_run,
        impatient=impatient,
    )


def role(aws: Aws, given: str | None = None) -> str:
    """The ARN of the execution role.

    Args:
        aws: Where.
        given: An ARN, or the name of a role of this account.

    Raises:
        SettingsError: None is given, and the account has none under a usual name; or it is given
            and cannot be one of this region's.
        ByocError: AWS cannot be asked.
    """
    given = (
        given
        or os.environ.get("BYOC_ROLE")
        or os.environ.get("SAGEMAKER_ROLE_ARN")
        or config().get("role")
    )
    arn = ROLE_ARN.fullmatch(given or "")
    if given and arn:
        if arn[1] != aws.partition.name:
            raise SettingsError(
                f"the role {given} is of the partition {arn[1]}, and {aws.region} is in "
                f"{aws.partition.name}; give a role of that, or another --region"
            )
        return given
    if given and given.startswith("arn:"):
        raise SettingsError(
            f"{given} is no role's ARN; expected "
            f"arn:{aws.partition.name}:iam::<account>:role/<name>"
        )
    if given:
        return f"arn:{aws.partition.name}:iam::{aws.account}:role/{given}"
    if aws.local:
        return LOCAL_ROLE
    if aws.dry_run:
        return UNKNOWN_ROLE
    found = _usual_role(aws)
    if found is None:
        raise SettingsError(
            "no execution role is known; give --role NAME-OR-ARN, set BYOC_ROLE, or write "
            "role = … in byoc.toml (a role that sagemaker.amazonaws.com may assume, with the "
            "policy AmazonSageMakerFullAccess)"
        )
    return found


def _usual_role(aws: Aws) -> str | None:
    """A role of this account that SageMaker may assume, under one of the usual names."""
    try:
        roles = _roles(aws)
    except CredentialsError as error:
        if code_of(error) in DENIED:
            return None  # who may not list roles must name one
        raise
    for usual in USUAL_ROLES:
        for one in roles:
            if one["RoleName"].startswith(usual):
                return str(one["Arn"])
    return None


def _roles(aws: Aws) -> list[dict[str, Any]]:
    roles: list[dict[str, Any]] = []
    request: dict[str, Any] = {}
    while True:
        answer = aws.call("iam", "ListRoles", request)
        roles += answer["Roles"]
        if not answer.get("IsTruncated"):
            return roles
        request = {"Marker": answer["Marker"]}


def bucket(
    aws: Aws,
    given: str | None = None,
    *,
    may_create: Callable[[str], bool] = lambda _: False,
    report: Report = SILENT,
) -> str:
    """The bucket for data, models and results; made when it is the account's default.

    Args:
        aws: Where.
        given: Its name; default: ``BYOC_BUCKET``, the configuration file, and then
            ``sagemaker-<region>-<account>``, which SageMaker's own SDK uses as well.
        may_create: Asked, with its name, whether a bucket that is not there may be made.
        report: Told when one was made.

    Raises:
        SettingsError: It is not there and may not be made.
        ByocError: AWS refuses.
    """
    name = bucket_name(aws, given)
    if aws.dry_run:
        return name
    try:
        aws.call("s3", "HeadBucket", {"Bucket": name})
    except NotFoundError:
        if not (aws.local or may_create(name)):
            raise SettingsError(
                f"the bucket {name} is not there; give --bucket with one that is, "
                "or --yes to make it"
            ) from None
    except RequestError as error:
        raise RequestError(
            f"the bucket {name} is in another region or not yours ({error})"
        ) from error
    else:
        return name
    request: dict[str, Any] = {"Bucket": name}
    if aws.region != "us-east-1":
        request["CreateBucketConfiguration"] = {"LocationConstraint": aws.region}
    aws.call("s3", "CreateBucket", request)
    block = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"),
        True,
    )
    aws.call(
        "s3", "PutPublicAccessBlock", {"Bucket": name, "PublicAccessBlockConfiguration": block}
    )
    report.say(f"made the bucket {name}")
    return name


def bucket_name(aws: Aws, given: str | None = None) -> str:
    """The name of the bucket, whether it is there or not.

    Raises:
        ByocError: The account is not known.
    """
    name = given or os.environ.get("BYOC_BUCKET") or config().get("bucket")
    return str(name).removeprefix("s3://").strip("/") if name else usual_bucket(aws)


def usual_bucket(aws: Aws) -> str:
    """The bucket that SageMaker's own SDK uses as well.

    Raises:
        ByocError: The account is not known.
    """
    return f"sagemaker-{aws.region}-{aws.account}"
