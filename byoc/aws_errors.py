"""What boto3 raises, as one line with what to do and an exit code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from byoc.errors import (
    ByocError,
    CredentialsError,
    InvocationError,
    NotFoundError,
    RequestError,
    SettingsError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN = {
    "AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidSignatureException", "MissingAuthenticationToken", "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}  # fmt: skip
#: Codes of who is known, and may not.
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "Forbidden"}
_MISSING = {
    "404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "NotFound", "RepositoryNotFoundException",
    "ImageNotFoundException", "ResourceNotFound", "ResourceNotFoundException",
}  # fmt: skip
_BUSY = {"Throttling", "ThrottlingException", "TooManyRequestsException", "ServiceUnavailable"}
_SIGN_IN = "sign in: aws configure, aws sso login, or set AWS_PROFILE"


def told(error: Exception, doing: str, where: str) -> ByocError:  # noqa: PLR0911 - a table
    """The error in our words.

    Args:
        error: As botocore or boto3 raised it.
        doing: The operation, such as ``sagemaker:CreateTrainingJob``.
        where: The endpoint's address or the region.
    """
    from botocore import exceptions as boto  # noqa: PLC0415 - heavy

    if isinstance(error, boto.ClientError):
        return _refused(dict(error.response), doing, where)
    if isinstance(error, boto.ProfileNotFound):
        return CredentialsError(f"{error}; see aws configure list-profiles")
    if isinstance(error, boto.ParamValidationError):
        lines = str(error).replace("Parameter validation failed:", "").strip().splitlines()
        return SettingsError(f"{doing} would be refused: {'; '.join(lines)}")
    if isinstance(
        error,
        (
            boto.NoCredentialsError,
            boto.PartialCredentialsError,
            boto.CredentialRetrievalError,
            boto.NoAuthTokenError,
        ),
    ):
        return CredentialsError(f"no AWS credentials ({_line(error)}); {_SIGN_IN}")
    if isinstance(error, (boto.SSOError, boto.TokenRetrievalError)):
        return CredentialsError(f"the AWS session has ended ({_line(error)}); {_SIGN_IN}")
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return UnreachableError(
            f"no answer from {where} to {doing} ({_line(error)}); check the network, the region "
            "and AWS_ENDPOINT_URL (byoc local status says whether a local endpoint runs)"
        )
    if isinstance(error, boto.NoRegionError):
        return SettingsError("no region is set; give --region, or set AWS_REGION")
    return RequestError(f"{doing} failed: {_line(error)}")


def code_of(error: Exception) -> str:
    """AWS's code of an error, or nothing."""
    cause = error.__cause__ or error
    response: dict[str, Any] = getattr(cause, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def not_aws(doing: str, where: str, said: str = "") -> UnreachableError:
    """Something answers, and in no form of AWS's."""
    words = f"{doing}: {said}" if said else doing
    return UnreachableError(
        f"what answers at {where} is not AWS ({words}); check AWS_ENDPOINT_URL and the proxy"
    )


def _refused(response: dict[str, Any], doing: str, where: str) -> ByocError:
    code = str(response.get("Error", {}).get("Code", ""))
    message = " ".join(str(response.get("Error", {}).get("Message", "")).split())
    message = message.rstrip(".") or "no message"
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if re.match(r"(?i)<(!doctype|html|head|body|h1|\?xml)\b", message):  # a page, for people
        return not_aws(doing, where, f"HTTP status {status}")
    for fits, make in _WORDS:
        if fits(code, message, status):
            return make(code, message, doing, response)
    return RequestError(f"{doing} was refused: {message} ({code})")


def _model_error(_: str, message: str, __: str, response: dict[str, Any]) -> ByocError:
    original = str(response.get("OriginalMessage") or message)
    status = response.get("OriginalStatusCode", "an error")
    stream = response.get("LogStreamArn", "")
    found = re.search(r"/aws/sagemaker/Endpoints/([^:/]+)", stream)
    hint = f"; its log: byoc logs {found[1]} --kind endpoint" if found else ""
    return InvocationError(f"the model answered {status}: {_plain(original)}{hint}")


def _plain(text: str) -> str:
    """The sentence of an error of ours, or the text on one line."""
    found = re.search(r'"message": ?"((?:[^"\\]|\\.)*)"', text)
    return " ".join((found[1] if found else text).split())[:600]


_Words = tuple[
    "Callable[[str, str, int], bool]", "Callable[[str, str, str, dict[str, Any]], ByocError]"
]
_WORDS: tuple[_Words, ...] = (
    (lambda code, _, __: code == "ModelError", _model_error),
    (
        lambda code, _, __: code == "ModelNotReadyException",
        lambda _, message, __, ___: InvocationError(
            f"the model is not ready yet: {message}; ask again in some seconds"
        ),
    ),
    (
        lambda code, _, __: code in _EXPIRED,
        lambda code, _, doing, ___: CredentialsError(
            f"the AWS credentials have expired ({code} from {doing}); {_SIGN_IN}"
        ),
    ),
    (
        lambda code, _, __: code in _UNKNOWN,
        lambda code, message, doing, ___: CredentialsError(
            f"AWS does not know these credentials ({code} from {doing}: {message}); {_SIGN_IN}"
        ),
    ),
    (
        lambda code, _, __: code in DENIED,
        lambda _, message, doing, ___: CredentialsError(
            f"{doing} is not allowed: {message}; ask for that permission, or use another profile"
        ),
    ),
    (
        lambda code, message, status: (
            code in _MISSING
            or (status in (0, 400, 404) and bool(
                re.search(r"(?i)could not find|not found|does not exist", message)))
        ),
        lambda code, message, doing, ___: NotFoundError(
            f"{doing}: {message if message != 'Not Found' else code}; byoc list shows what is there"
        ),
    ),
    (
        lambda code, _, __: code == "ResourceInUse",
        lambda _, message, doing, ___: RequestError(f"{doing}: {message}; give another --name"),
    ),
    (
        lambda code, _, __: code == "ResourceLimitExceeded",
        lambda _, message, doing, ___: RequestError(
            f"{doing}: {message}; ask for more in the Service Quotas console, or use another "
            "--instance-type"
        ),
    ),
    (
        lambda code, _, __: code in _BUSY,
        lambda code, message, doing, ___: RequestError(
            f"{doing}: AWS is busy ({code}: {message}); try again in a minute"
        ),
    ),
)  # fmt: skip


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
