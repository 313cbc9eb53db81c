"""Every way in which serving fails, drawn as a tree.

::

    ServingError
    ├── StartError                 the server cannot start: exit code 3
    │   ├── SettingsError          a variable has a bad value: exit code 2
    │   ├── UsageError             the command line is not understood: exit code 2
    │   ├── DependencyError        a package is missing from the image
    │   ├── ArchiveError           an archive is broken or unsafe
    │   ├── RequirementsError      code/requirements.txt cannot be satisfied
    │   ├── HandlerError           the user's module is missing, broken or ambiguous
    │   └── ModelError             the model cannot be loaded
    └── RequestError               one request fails: an HTTP status
        ├── BadBodyError              400 the body is not what its type says
        ├── ModelLoadError            500 a model of several cannot be loaded
        ├── NotFoundError             404 no such path
        │   └── UnknownModelError     404 no such model
        ├── MethodNotAllowedError     405 the path does not take this method
        ├── NotAcceptableError        406 the answer cannot be given in an accepted type
        ├── RequestTimeoutError       408 the headers did not arrive
        ├── ModelExistsError          409 the model is loaded already
        ├── BodyTimeoutError          408 the body did not arrive
        ├── BodyTooLargeError         413 the body is over the limit
        ├── UnsupportedTypeError      415 the body's type is not understood
        ├── UpgradeRequiredError      426 the path is a WebSocket's
        ├── RefusedByModelError       422 the body is well formed, the model refuses it
        ├── InternalError             500 a bug, ours or the handler's
        ├── UnavailableError          503 loading, full or draining (Retry-After)
        ├── InsufficientStorageError  507 no room on the disk for a long body
        ├── DeadlineError             504 the answer came too late to be of use
        └── InsufficientMemoryError   507 too little memory for a model or its request

A message says what was seen, what was expected and what to do. Exit code 3 is what makes
gunicorn's master stop instead of starting the worker again.
"""

from __future__ import annotations


class ServingError(Exception):
    """Base of everything that this package raises on purpose."""


class StartError(ServingError):
    """The server cannot start; the message is the last line of the log."""

    exit_code = 3


class SettingsError(StartError):
    """One or more variables have bad values; ``problems`` lists them all."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class UsageError(StartError):
    """The command line is not understood."""

    exit_code = 2


class DependencyError(StartError):
    """A package that serving needs is not installed."""


class ArchiveError(StartError):
    """An archive cannot be fetched, read, or safely unpacked."""


class RequirementsError(StartError):
    """The handler's requirements are not installed and cannot be."""


class HandlerError(StartError):
    """The handler's module is missing, broken or contradictory."""


class ModelError(StartError):
    """The model cannot be loaded."""


class RequestError(ServingError):
    """One request cannot be answered as asked.

    Attributes:
        status: the HTTP status.
        code: a stable word for programs.
        headers: response headers that belong to the status.
    """

    status = 400
    code = "bad_request"

    def __init__(self, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.headers = headers


class BadBodyError(RequestError):
    """The body cannot be decoded."""

    code = "bad_body"


class NotFoundError(RequestError):
    """No such path."""

    status = 404
    code = "not_found"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(f"{path} does not take {method}; use {allowed}", (("Allow", allowed),))


class NotAcceptableError(RequestError):
    """None of the accepted types can carry the answer."""

    status = 406
    code = "not_acceptable"


class RequestTimeoutError(RequestError):
    """The client stopped within the headers."""

    status = 408
    code = "request_timeout"


class BodyTimeoutError(RequestError):
    """The client stopped sending its body."""

    status = 408
    code = "body_timeout"


class BodyTooLargeError(RequestError):
    """The body is over the configured limit."""

    status = 413
    code = "body_too_large"

    def __init__(self, seen: str, limit_bytes: int) -> None:
        super().__init__(
            f"the body is {seen}, the limit is {limit_bytes} bytes; "
            "send less, or raise BYOC_MAX_BODY_BYTES"
        )


class UnsupportedTypeError(RequestError):
    """The request's Content-Type is not understood."""

    status = 415
    code = "unsupported_media_type"


class RefusedByModelError(RequestError):
    """The body is well formed but the model does not take it."""

    status = 422
    code = "refused_by_model"


class UpgradeRequiredError(RequestError):
    """The path takes WebSockets only."""

    status = 426
    code = "upgrade_required"


class InternalError(RequestError):
    """A bug; the log has the traceback under the request's id."""

    status = 500
    code = "internal_error"


class UnavailableError(RequestError):
    """Not now: loading, full, or draining."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, code: str = "unavailable", retry_after_s: int = 1) -> None:
        super().__init__(message, (("Retry-After", str(retry_after_s)),))
        self.code = code


class InsufficientStorageError(RequestError):
    """There is no room on the disk for a long body."""

    status = 507
    code = "insufficient_storage"


class DeadlineError(RequestError):
    """The answer would come too late."""

    status = 504
    code = "deadline_exceeded"


#: Words for what the HTTP parser refuses.
_PROTOCOL_CODES = {
    400: "bad_request",
    408: "request_timeout",
    413: "body_too_large",
    414: "uri_too_long",
    417: "expectation_failed",
    426: "upgrade_required",
    431: "headers_too_large",
    501: "not_implemented",
}


def protocol_error(
    status: int, message: str, headers: tuple[tuple[str, str], ...] = ()
) -> RequestError:
    """What is wrong with a message that is no proper HTTP.

    Args:
        status: what the parser would answer; an unknown one is a bug, 500.
        message: what the parser says.
        headers: further headers of the answer.
    """
    if status not in _PROTOCOL_CODES:
        return InternalError("the server failed; the log has the details", headers)
    error = RequestError(f"malformed HTTP request: {message or 'not understood'}", headers)
    error.status, error.code = status, _PROTOCOL_CODES[status]
    return error


class UnknownModelError(NotFoundError):
    """No model of that name is loaded."""

    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no model {name[:200]!r} is loaded; load it first: POST /models with "
            '{"model_name": …, "url": …}'
        )


class ModelExistsError(RequestError):
    """A model of that name is loaded, or being loaded."""

    status = 409
    code = "model_already_loaded"

    def __init__(self, name: str, *, loading: bool) -> None:
        state = "being loaded" if loading else "loaded already"
        super().__init__(f"the model {name[:200]!r} is {state}; unload it first to replace it")


class ModelLoadError(RequestError):
    """A model of a multi-model server cannot be loaded; the others go on."""

    status = 500
    code = "model_load_failed"


class InsufficientMemoryError(RequestError):
    """Too little memory: SageMaker unloads other models and tries again (contract, section 10)."""

    status = 507
    code = "insufficient_memory"
