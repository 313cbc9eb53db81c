"""Records sent to the container of a transform job, with patience."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byoc.local.hosting.wire import ExchangeError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from byoc.local.hosting.container import Container

#: Of ModelClientConfig.
TIMEOUT_SECONDS, RETRIES = 600, 3
_PARAMETERS_SECONDS = 5.0
#: Between two tries: doubled each time.
_PAUSE_SECONDS = 0.2
_LOOK_SECONDS = 0.1
_SHOWN = 400
#: A container that has ended is given this long to serve again.
_AGAIN_SECONDS = 120.0


class RequestError(Exception):
    """The container did not transform a record: words for the job's log.

    Attributes:
        client: It says that the record is wrong (4xx); otherwise it failed itself.
    """

    def __init__(self, words: str, *, client: bool) -> None:
        super().__init__(words)
        self.client = client


class StoppedError(Exception):
    """The job is being stopped."""


@dataclass(frozen=True)
class Parameters:
    """How records are sent (contract section 11).

    Attributes:
        concurrency: Requests at once.
        several: Several records in a request.
        most_mb: Of a request; 0: whole objects, however large.
    """

    concurrency: int = 1
    several: bool = True
    most_mb: int = 6

    @property
    def most(self) -> int | None:
        """Bytes of a request."""
        return self.most_mb * 2**20 or None


def parameters(job: Mapping[str, Any], container: Container) -> Parameters:
    """The job's own, else what the container proposes, else SageMaker's."""
    proposed: dict[str, Any] = {}
    try:
        reply = container.connections.ask(
            "GET", "/execution-parameters", {}, b"", _PARAMETERS_SECONDS
        )
        if reply.status == 200:
            found = json.loads(reply.body)
            proposed = found if isinstance(found, dict) else {}
    except (ExchangeError, ValueError):
        pass
    strategy = {"MultiRecord": True, "SingleRecord": False}.get(job.get("BatchStrategy", ""))
    if strategy is None:
        strategy = proposed.get("BatchStrategy", "MULTI_RECORD") != "SINGLE_RECORD"
    wanted = {}
    for name, default in (("MaxConcurrentTransforms", 1), ("MaxPayloadInMB", 6)):
        value = job.get(name, proposed.get(name, default))
        wanted[name] = value if isinstance(value, int) and value >= 0 else default
    # 0 is what the SDK sends for "the container knows best".
    concurrency = wanted["MaxConcurrentTransforms"] or 1
    return Parameters(min(concurrency, 100), strategy, wanted["MaxPayloadInMB"])


class Requests:
    """Sends bodies.

    Args:
        job: The request of CreateTransformJob.
        container: What transforms.
        stopping: Set when the job is to end.
    """

    def __init__(
        self, job: Mapping[str, Any], container: Container, stopping: threading.Event
    ) -> None:
        client = job.get("ModelClientConfig", {})
        self._seconds = float(client.get("InvocationsTimeoutInSeconds", TIMEOUT_SECONDS))
        self._tries = 1 + client.get("InvocationsMaxRetries", RETRIES)
        headers = {
            "Content-Type": job["TransformInput"].get("ContentType"),
            "Accept": job["TransformOutput"].get("Accept"),
        }
        self._headers = {name: value for name, value in headers.items() if value}
        self._container, self._stopping = container, stopping

    def send(self, body: Callable[[], bytes | Iterable[bytes]]) -> bytes:
        """The container's answer.

        Args:
            body: Makes the body, again for each try.

        Raises:
            RequestError: It was 4xx, or was 5xx or none at the last try.
            StoppedError: The job is being stopped.
        """
        for number in range(1, self._tries + 1):
            self._await_container()
            words, client, answer = self._try(body)
            if answer is not None:
                return answer
            if self._stopping.is_set():
                raise StoppedError
            if client or number == self._tries:
                raise RequestError(words, client=client)
            self._stopping.wait(_PAUSE_SECONDS * 2**number)
        raise AssertionError

    def _try(self, body: Callable[[], bytes | Iterable[bytes]]) -> tuple[str, bool, bytes | None]:
        try:
            reply = self._container.connections.ask(
                "POST", "/invocations", self._headers, body(), self._seconds
            )
        except ExchangeError as error:
            return f"no response: {error}", False, None
        if 200 <= reply.status < 300:
            return "", False, reply.body
        shown = reply.body.decode("utf-8", "replace")[:_SHOWN]
        return f"{reply.status}: {shown}", 400 <= reply.status < 500, None

    def _await_container(self) -> None:
        """A container that has ended is being started again."""
        until = time.monotonic() + _AGAIN_SECONDS
        while not self._container.ready and time.monotonic() < until:
            if self._stopping.wait(_LOOK_SECONDS):
                break
        if self._stopping.is_set():
            raise StoppedError
