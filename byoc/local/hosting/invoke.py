"""A request to an endpoint: which container gets it, and what the caller is told of its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from byoc.local.arns import ACCOUNT, partition
from byoc.local.faults import AwsError
from byoc.local.hosting.connections import Reply
from byoc.local.hosting.model_data import ModelDataError
from byoc.local.hosting.multi_model import LoadError
from byoc.local.hosting.wire import ExchangeError, LateError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from byoc.local.hosting.connections import Answer
    from byoc.local.hosting.container import Container
    from byoc.local.hosting.fleet import Fleet, Variant
    from byoc.local.hosting.instance import Instance

#: Characters of a container's error that the caller gets (contract section 7.5).
_SHOWN = 2048
#: A container that refuses a connection is about to be started again; others may serve.
_TRIES = 3
INVOCATIONS = "/invocations"


class Invocation:
    """One request.

    Args:
        name: The endpoint's.
        region: For log streams.
        members: Of the request, by the names of the service model.
        body: Its body.
        seconds: Until the answer has to be complete.
    """

    def __init__(
        self, name: str, region: str, members: Mapping[str, Any], body: bytes, seconds: float
    ) -> None:
        self._name, self._region = name, region
        self._members, self._body, self._seconds = dict(members), body, seconds
        self._deadline = time.monotonic() + seconds
        #: Who answered.
        self.variant: Variant | None = None
        self._stream = ""

    def ask(self, fleet: Fleet) -> Reply:
        """The whole answer, of status 200 to 299.

        Raises:
            AwsError: There is none.
        """
        answer = self.open(fleet)
        try:
            return Reply(answer.status, answer.headers, b"".join(answer.chunks()))
        except ExchangeError as error:
            raise self.broken(error) from error
        finally:
            answer.close()

    def open(self, fleet: Fleet) -> Answer:
        """The answer's beginning, of status 200 to 299. Close what it returns.

        Raises:
            AwsError: There is none.
        """
        variant = self.variant = self._choose(fleet)
        target = self._members.get("TargetModel")
        for _ in range(_TRIES):
            instance = variant.pick(target)
            if instance is None:
                break
            self._stream = instance.stream
            container, body = self._before_last(variant, instance)
            try:
                return self._send(variant, container, target, body)
            except UnreachableError:
                container.failed()
        raise AwsError(
            "ServiceUnavailable",
            f"No container of variant {variant.name} of endpoint {self._name} serves at present; "
            "it is being started again.",
            503,
        )

    def broken(self, error: Exception) -> AwsError:
        """What the caller is told when there is no complete answer."""
        if isinstance(error, LateError):
            words = (
                "Your invocation timed out while waiting for a response from container primary: "
                f"it took longer than {self._seconds:g} seconds."
            )
        else:
            words = f"Container primary gave no complete response: {error}."
        return self._model_error(0, words)

    def _choose(self, fleet: Fleet) -> Variant:
        wanted = self._members.get("TargetVariant")
        variant = fleet.variant(wanted)
        if variant is None:
            found = f"Variant {wanted}" if wanted else "A variant with a weight above 0"
            raise refused(f"{found} of endpoint {self._name} of account {ACCOUNT} not found.")
        target = self._members.get("TargetModel")
        if variant.models is None and target is not None:
            raise refused(
                "Endpoint is not a multi-model endpoint; a target model may not be given."
            )
        if variant.models is not None and target is None:
            raise refused("A multi-model endpoint needs a target model.")
        return variant

    def _before_last(self, variant: Variant, instance: Instance) -> tuple[Container, bytes]:
        """The container that answers, and what it is asked: a pipeline asks the others before."""
        wanted = self._members.get("TargetContainerHostname")
        if variant.direct:
            if wanted not in instance.containers:
                found = ", ".join(instance.containers)
                raise refused(f"TargetContainerHostname must be one of: {found}.")
            return instance.containers[wanted], self._body
        if wanted is not None:
            raise refused("A target container was given, but its model has not the Mode Direct.")
        *before, last = instance.containers.values()
        body = self._body
        for container in before:
            try:
                answer = self._send(variant, container, None, body)
            except UnreachableError as error:
                container.failed()
                raise self.broken(error) from error
            try:
                body = b"".join(answer.chunks())
            except ExchangeError as error:
                raise self.broken(error) from error
            finally:
                answer.close()
            # One container's answer is the next one's request.
            self._members["ContentType"] = answer.headers.get("content-type", "")
        return last, body

    def _send(
        self, variant: Variant, container: Container, target: str | None, body: bytes
    ) -> Answer:
        try:
            answer = self._exchange(variant, container, target, body)
        except UnreachableError:
            raise
        except ExchangeError as error:
            raise self.broken(error) from error
        except ModelDataError as error:
            raise refused(str(error)) from error
        except LoadError as error:
            raise self._said(error.reply) from error
        if 200 <= answer.status < 300:
            return answer
        try:
            reply = Reply(answer.status, answer.headers, b"".join(answer.chunks()))
        except ExchangeError as error:
            raise self.broken(error) from error
        finally:
            answer.close()
        raise self._said(reply)

    def _exchange(
        self, variant: Variant, container: Container, target: str | None, body: bytes
    ) -> Answer:
        headers = _headers(self._members)
        if variant.models is None or target is None:
            return self._post(container, INVOCATIONS, headers, body)
        path = variant.models.path(target, container)
        answer = self._post(container, path, headers, body)
        if answer.status == 404:  # it has made room for another
            answer.close()
            variant.models.forget(target, container)
            path = variant.models.path(target, container)
            answer = self._post(container, path, headers, body)
        return answer

    def _post(
        self, container: Container, path: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        left = self._deadline - time.monotonic()
        return container.connections.open("POST", path, headers, body, left)

    def _said(self, reply: Reply) -> AwsError:
        return self._model_error(reply.status, reply.body.decode("utf-8", "replace"))

    def _model_error(self, status: int, words: str) -> AwsError:
        kind = "client" if 400 <= status < 500 else "server"
        group = f"/aws/sagemaker/Endpoints/{self._name}"
        shown = words[:_SHOWN]
        return AwsError(
            "ModelError",
            f'Received {kind} error ({status}) from primary with message "{shown}". See log group '
            f"{group}, log stream {self._stream}, in account {ACCOUNT} for more information.",
            424,
            OriginalStatusCode=status,
            OriginalMessage=shown,
            LogStreamArn=f"arn:{partition(self._region)}:logs:{self._region}:{ACCOUNT}:"
            f"log-group:{group}:log-stream:{self._stream}",
        )


def refused(message: str) -> AwsError:
    """What SageMaker Runtime says of a wrong request."""
    return AwsError("ValidationError", message)


def _headers(members: Mapping[str, Any]) -> dict[str, str]:
    """What the container is sent (contract section 7.4)."""
    return {header: members[name] for name, header in _SENT if name in members}


_SENT = (
    ("ContentType", "Content-Type"),
    ("Accept", "Accept"),
    ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
    ("TargetModel", "X-Amzn-SageMaker-Target-Model"),
    ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
    ("SessionId", "X-Amzn-SageMaker-Session-Id"),
)
