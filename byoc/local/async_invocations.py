"""InvokeEndpointAsync: requests that wait in a queue, with input and output in S3.

Each accepted request is in the store until its output or its failure is in S3, so a restart
answers it as well.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from byoc.local import s3
from byoc.local.faults import AwsError
from byoc.local.hosting.invoke import Invocation, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from byoc.local.actions import Action, Context
    from byoc.local.clients import Clients
    from byoc.local.endpoints import Endpoints
    from byoc.local.hosting.fleet import Fleet
    from byoc.local.store import Document

KIND = "async-invocation"
TTL_SECONDS, TIMEOUT_SECONDS = 21_600.0, 900.0
#: Requests of one endpoint that are answered at the same time, whatever it is configured for.
MOST_AT_ONCE = 32
#: Requests of one endpoint that wait.
MOST_WAITING = 10_000
_LOOK_SECONDS = 0.2


class AsyncInvocations:
    """The requests of all endpoints.

    Args:
        context: What all resources share.
        endpoints: What answers.
        clients: Of S3.
        log: The server's own.
    """

    def __init__(
        self, context: Context, endpoints: Endpoints, clients: Clients, log: Callable[[str], None]
    ) -> None:
        self._store, self._region = context.store, context.region
        self._endpoints, self._clients, self._log = endpoints, clients, log
        self._lock = threading.Lock()
        self._queues: dict[str, list[Document]] = {}
        self._workers: dict[str, int] = {}
        self._closed = threading.Event()

    @property
    def actions(self) -> Mapping[str, Action]:
        """None of SageMaker's."""
        return {}

    def accept(
        self, name: str, fleet: Fleet, members: Mapping[str, Any], body: bytes
    ) -> dict[str, str]:
        """Queue a request; where its output will be.

        Args:
            name: The endpoint's.
            fleet: What serves, with its ``AsyncInferenceConfig``.
            members: Of the request.
            body: Its body: for small requests, in place of the input's location.

        Raises:
            AwsError: It has no input, or too many wait.
        """
        location = members.get("InputLocation")
        if bool(location) == bool(body):
            raise refused("Exactly one of InputLocation and Body must be given.")
        if location and not location.startswith("s3://"):
            raise refused(f"InputLocation {location} is no s3:// URI.")
        config = (fleet.asynchronous or {})["OutputConfig"]
        number = str(uuid.uuid4())
        extension = members.get("S3OutputPathExtension", "").strip("/")
        middle = f"{extension}/" if extension else ""
        name_of = members.get("Filename") or f"{number}.out"
        document: dict[str, Any] = {
            "Id": number,
            "Endpoint": name,
            "Members": {
                key: members[key]
                for key in ("ContentType", "Accept", "CustomAttributes", "InferenceId")
                if key in members
            },
            "InputLocation": location,
            "Body": body.decode("latin-1"),
            "Timeout": members.get("InvocationTimeoutSeconds", TIMEOUT_SECONDS),
            "Until": time.time() + members.get("RequestTTLSeconds", TTL_SECONDS),
        }
        accepted = {"InferenceId": members.get("InferenceId", number)}
        for member, key, file in (
            ("S3OutputPath", "OutputLocation", name_of),
            ("S3FailurePath", "FailureLocation", f"{number}-error.out"),
        ):
            if path := config.get(member):
                accepted[key] = document[key] = f"{path.rstrip('/')}/{middle}{file}"
        if "OutputLocation" not in accepted:
            raise refused(f"Endpoint {name} has no S3OutputPath.")
        with self._lock:
            if len(self._queues.get(name, ())) >= MOST_WAITING:
                raise AwsError(
                    "ServiceUnavailable", f"{MOST_WAITING} requests of {name} are waiting.", 503
                )
        self._store.create(KIND, number, document)
        self._queue(document, _at_once(fleet))
        return accepted

    def recover(self) -> None:
        """Queue again what an earlier process had accepted."""
        for document in self._store.all(KIND):
            self._queue(document, 1)

    def close(self) -> None:
        """Begin nothing more; what waits is answered after the next start."""
        self._closed.set()

    def _queue(self, document: Document, at_once: int) -> None:
        name = document["Endpoint"]
        with self._lock:
            self._queues.setdefault(name, []).append(document)
            if self._workers.get(name, 0) < at_once:
                self._workers[name] = self._workers.get(name, 0) + 1
                threading.Thread(
                    target=self._work, args=(name,), name=f"async-{name}", daemon=True
                ).start()

    def _work(self, name: str) -> None:
        while True:
            with self._lock:
                if self._closed.is_set() or not self._queues[name]:
                    self._workers[name] -= 1
                    return
                document = self._queues[name].pop(0)
            try:
                done = self._answer(document)
            except Exception as error:  # noqa: BLE001 - the next one is still answered
                self._log(f"async invocation {document['Id']}: {error!r}")
                done = True
            if done:
                self._store.delete(KIND, document["Id"])

    def _answer(self, document: Document) -> bool:
        """Answer a request; False when the server ends before."""
        client = self._clients("s3")
        try:
            output = self._ask(document, client)
        except (AwsError, s3.S3Error) as error:
            if self._closed.is_set():
                return False
            self._failed(document, error, client)
            return True
        if output is None:
            return False
        _put(client, document["OutputLocation"], *output)
        return True

    def _ask(self, document: Document, client: Any) -> tuple[bytes, str] | None:
        name = document["Endpoint"]
        if document["InputLocation"]:
            body = s3.read(client, document["InputLocation"])
        else:
            body = document["Body"].encode("latin-1")
        while not self._closed.is_set():
            if time.time() > document["Until"]:
                raise AwsError("RequestExpired", "It waited longer than its RequestTTLSeconds.")
            live = self._endpoints.live(name)
            fleet = None if live is None else live.lease()
            if live is None or fleet is None:
                if self._endpoints.status(name) in (None, "Failed", "Deleting"):
                    raise AwsError("EndpointGone", f"Endpoint {name} does not serve any more.")
                self._closed.wait(_LOOK_SECONDS)
                continue
            try:
                invocation = Invocation(
                    name, self._region, document["Members"], body, document["Timeout"]
                )
                reply = invocation.ask(fleet)
            except AwsError as error:
                if error.code != "ServiceUnavailable":
                    raise
                self._closed.wait(_LOOK_SECONDS)
                continue
            finally:
                live.release(fleet)
            return reply.body, reply.headers.get("content-type", "application/octet-stream")
        return None

    def _failed(self, document: Document, error: Exception, client: Any) -> None:
        self._log(f"async invocation {document['Id']} of {document['Endpoint']}: {error}")
        location = document.get("FailureLocation")
        if location is None:
            return
        members = getattr(error, "members", {})
        words = members.get("OriginalMessage") or str(error)
        _put(client, location, words.encode(), "text/plain")


def _at_once(fleet: Fleet) -> int:
    """Requests that the endpoint is asked at the same time."""
    client = (fleet.asynchronous or {}).get("ClientConfig", {})
    each = client.get("MaxConcurrentInvocationsPerInstance", 4)
    instances = sum(len(variant.instances) for variant in fleet.variants)
    return max(1, min(int(each) * instances, MOST_AT_ONCE))


def _put(client: Any, uri: str, content: bytes, kind: str) -> None:
    bucket, key = s3.split(uri)
    client.put_object(Bucket=bucket, Key=key, Body=content, ContentType=kind)
