"""Repositories of ECR: made when missing, and how to sign in."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from byoc.aws_errors import code_of
from byoc.errors import CredentialsError, RegistryError, RequestError, SettingsError
from byoc.manifests import Registry
from byoc.report import SILENT

if TYPE_CHECKING:
    from byoc.aws import Aws
    from byoc.report import Report

_NAME = re.compile(r"(?=.{2,256}$)[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
#: Untagged images are no deployment's: an image that runs keeps its tag, or is named by a digest.
UNTAGGED_DAYS = 30


def lifecycle_policy() -> dict[str, Any]:
    """Images that have lost their tags go after a month; tagged ones stay.

    Nothing tagged is ever expired: an endpoint pulls its image again when it scales or is patched
    (contract section 15).
    """
    rule = {
        "rulePriority": 1,
        "description": f"untagged images go after {UNTAGGED_DAYS} days",
        "selection": {
            "tagStatus": "untagged",
            "countType": "sinceImagePushed",
            "countUnit": "days",
            "countNumber": UNTAGGED_DAYS,
        },
        "action": {"type": "expire"},
    }
    return {"rules": [rule]}


def ensure(aws: Aws, name: str, *, immutable: bool = False, report: Report = SILENT) -> None:
    """Make the repository unless it is there.

    Args:
        aws: Where.
        name: Its name.
        immutable: Whether a tag may be given once only; of a repository that is made here.
        report: Told when one was made.

    Raises:
        SettingsError: That is no name.
        ByocError: AWS refuses.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} is no repository's name; expected small letters, digits and ._-/ inside"
        )
    found = aws.find("ecr", "DescribeRepositories", {"repositoryNames": [name]})
    if found and found.get("repositories"):
        mutability = found["repositories"][0].get("imageTagMutability", "MUTABLE")
        if immutable and not mutability.startswith("IMMUTABLE"):
            report.say(
                f"repository {name} is there, and its tags may be moved; --immutable is for "
                "new ones"
            )
        return
    try:
        aws.call(
            "ecr",
            "CreateRepository",
            {
                "repositoryName": name,
                "imageTagMutability": "IMMUTABLE" if immutable else "MUTABLE",
                "imageScanningConfiguration": {"scanOnPush": True},
            },
        )
    except RequestError as error:
        if code_of(error) != "RepositoryAlreadyExistsException":  # somebody was quicker
            raise
    policy = json.dumps(lifecycle_policy())
    aws.call("ecr", "PutLifecyclePolicy", {"repositoryName": name, "lifecyclePolicyText": policy})
    report.say(f"made the repository {name}: scanned on push, {'im' * immutable}mutable tags")


def sign_in(aws: Aws) -> Registry | None:
    """The account's registry with a token for twelve hours; None with ``dry_run``.

    Raises:
        CredentialsError: AWS gives none.
        ByocError: AWS refuses.
    """
    answer = aws.ask("ecr", "GetAuthorizationToken")
    if answer is None:
        return None
    try:
        data = answer["authorizationData"][0]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        host = str(data["proxyEndpoint"]).partition("://")[2]
    except (LookupError, ValueError) as error:
        raise CredentialsError(
            f"ECR gave no token that can be read ({error}); try again"
        ) from error
    if not (user and password and host):
        raise RegistryError("ECR gave an empty token; try again")
    return Registry(host, user, password)
