"""The one port: which service a request is for, and how an error is told."""

from __future__ import annotations

import json
import traceback
import uuid
from typing import TYPE_CHECKING, Any, Protocol
from xml.sax.saxutils import escape

from byoc.local import browsers, sagemaker_api
from byoc.local.faults import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from byoc.local.actions import Action

JSON = "application/x-amz-json-1.1"
#: The largest request that is no upload: 25 MB and what surrounds it (contract section 7.3).
LARGEST_REQUEST_BYTES = 26 * 2**20
HEALTH = "/_byoc/health"
#: How services whose requests are forms (IAM, STS) tell an error; S3 tells it without the frame.
QUERY_ERROR = "<ErrorResponse>{error}<RequestId>{request_id}</RequestId></ErrorResponse>"


class Runtime(Protocol):
    """SageMaker Runtime."""

    def __call__(self, environ: Any, start_response: Any, request_id: str) -> Iterable[bytes]:
        """Answer an invocation, or raise AwsError."""


class Application:
    """The WSGI application.

    Args:
        actions: SageMaker's.
        runtime: For ``/endpoints/…``.
        others: For every other service.
        log: Takes a line for the server's own log.
    """

    def __init__(
        self,
        actions: Mapping[str, Action],
        runtime: Runtime,
        others: Callable[[Any, Any], Iterable[bytes]],
        log: Callable[[str], None],
    ) -> None:
        self._actions, self._runtime, self._others, self._log = actions, runtime, others, log
        #: Set when the server ends: nothing new is begun.
        self.closing = False

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        request_id = str(uuid.uuid4())
        try:
            browsers.refuse(environ)
            target = environ.get("HTTP_X_AMZ_TARGET", "")
            path = environ.get("PATH_INFO", "")
            if target.startswith(sagemaker_api.TARGET) or _is_invocation(path):
                self._take_new()
            if target.startswith(sagemaker_api.TARGET):
                content = sagemaker_api.answer(self._actions, target, read(environ))
                return _json(start_response, 200, content, request_id)
            if _is_invocation(path) and _signed_for(environ) in ("sagemaker", ""):
                return self._runtime(environ, start_response, request_id)
            if path == HEALTH:
                return _json(start_response, 200, {"status": "ok"}, request_id)
            return self._ask_others(environ, start_response, request_id)
        except AwsError as error:
            return tell(start_response, error, request_id)
        except Exception:  # noqa: BLE001 - a fault of ours is told as AWS tells its own
            return tell(start_response, self._fault(request_id), request_id)

    def _take_new(self) -> None:
        if self.closing:
            raise AwsError("ServiceUnavailable", "The local endpoint is being stopped.", 503)

    def _ask_others(self, environ: Any, start_response: Any, request_id: str) -> Iterable[bytes]:
        """The other services; what fails is told in the protocol that the service's clients read.

        Bodies of requests are read by then: form and service are taken from the headers.
        """
        try:
            return self._others(environ, start_response)
        except AwsError as error:
            fault = error
        except NotImplementedError as error:
            fault = AwsError("NotImplemented", f"{error}; it does not run locally", 501)
        except Exception:  # noqa: BLE001 - a fault of ours is told as AWS tells its own
            fault = self._fault(request_id)
        if _signed_for(environ) == "s3":
            fault.code = {"InternalFailure": "InternalError"}.get(fault.code, fault.code)
            return _xml(start_response, fault, request_id, "{error}")
        if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            return _xml(start_response, fault, request_id, QUERY_ERROR)
        return tell(start_response, fault, request_id)

    def _fault(self, request_id: str) -> AwsError:
        self._log(f"request {request_id} failed\n{traceback.format_exc()}")
        return AwsError(
            "InternalFailure", f"the local endpoint failed; see its log for {request_id}", 500
        )


def _is_invocation(path: str) -> bool:
    return path.startswith("/endpoints/")


def read(environ: Any, most: int = LARGEST_REQUEST_BYTES) -> bytes:
    """A request's body.

    Raises:
        AwsError: It is longer than ``most`` bytes.
    """
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > most:
        raise AwsError("RequestEntityTooLarge", f"{length} bytes; at most {most}", 413)
    if length:
        content: bytes = environ["wsgi.input"].read(length)
        return content
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        content = environ["wsgi.input"].read(most + 1)
        if len(content) > most:
            raise AwsError("RequestEntityTooLarge", f"more than {most} bytes", 413)
        return content
    return b""


def tell(start_response: Any, error: AwsError, request_id: str) -> list[bytes]:
    """The answer that is an error."""
    content = {"__type": error.code, "message": error.message, "Message": error.message}
    headers = [("x-amzn-ErrorType", error.code)]
    return _json(start_response, error.status, content | error.members, request_id, headers)


def _json(
    start_response: Any,
    status: int,
    content: Mapping[str, Any],
    request_id: str,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    body = json.dumps(content).encode()
    start_response(
        f"{status} {'OK' if status == 200 else 'Error'}",
        [
            ("Content-Type", JSON),
            ("Content-Length", str(len(body))),
            ("x-amzn-RequestId", request_id),
            *headers,
        ],
    )
    return [body]


def _xml(start_response: Any, error: AwsError, request_id: str, frame: str) -> list[bytes]:
    told = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
    body = frame.format(error=told, request_id=request_id).encode()
    headers = [
        ("Content-Type", "text/xml"),
        ("Content-Length", str(len(body))),
        ("x-amzn-RequestId", request_id),
    ]
    start_response(f"{error.status} Error", headers)
    return [body]


def _signed_for(environ: Any) -> str:
    """The service in the signature's scope: ``Credential=KEY/DATE/REGION/SERVICE/aws4_request``."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0]
    parts = scope.split("/")
    return parts[3] if len(parts) > 3 else ""
