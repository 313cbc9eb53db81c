"""One transform job, from its model to its last object."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from byoc.local import s3
from byoc.local.hosting import model_data
from byoc.local.hosting.container import Container, StartError
from byoc.local.hosting.launch import Program
from byoc.local.hosting.model_data import ModelDataError
from byoc.local.transform.objects import Objects, listed
from byoc.local.transform.requests import Requests, StoppedError, parameters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from byoc.local.actions import Context
    from byoc.local.journal import Journal

_LOOK_SECONDS = 0.05
#: Objects transformed at once.
_OBJECTS = 16


class JobError(Exception):
    """The job failed: its ``FailureReason``."""


class Job:
    """A job.

    Args:
        request: Of CreateTransformJob.
        container: Of the model.
        root: A folder of its own; stands for ``/opt/ml``.
        context: Of the local endpoint.
        runner: ``auto``, ``docker`` or ``process``.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        container: Mapping[str, Any],
        root: Path,
        context: Context,
        runner: str,
    ) -> None:
        self._request, self._model, self._root = request, container, root
        self._program = Program(
            context,
            container["Image"],
            runner,
            root,
            {
                **container.get("Environment", {}),
                **request.get("Environment", {}),
                **variables(request),
            },
            instance_type=request["TransformResources"]["InstanceType"],
        )
        self.stopping = threading.Event()

    def run(self, client: Any, journal: Journal, data_log: Journal) -> None:
        """Do it; everything is stopped and deleted at the end.

        Args:
            client: Of S3.
            journal: Of the container's output; is closed.
            data_log: Of what becomes of the objects.

        Raises:
            JobError: It failed; the output of some objects may be there.
            StoppedError: It was stopped.
        """
        container = Container(self._program, journal)
        try:
            self._start(container, client)
            how = parameters(self._request, container)
            data_log.line(
                f"MaxConcurrentTransforms={how.concurrency}, MaxPayloadInMB={how.most_mb}, "
                f"BatchStrategy={'MULTI_RECORD' if how.several else 'SINGLE_RECORD'}"
            )
            count = self._request["TransformResources"]["InstanceCount"]
            if count > 1:
                data_log.line(f"{count} instances were asked for; this machine runs one")
            requests = Requests(self._request, container, self.stopping)
            objects = Objects(self._request, client, requests, how, data_log.line)
            try:
                self._transform(container, objects, listed(self._request, client), how.concurrency)
            finally:
                objects.close()
        except s3.S3Error as error:
            raise JobError(f"ClientError: {error}") from error
        finally:
            container.stop()
            model_data.remove(self._root)

    def _start(self, container: Container, client: Any) -> None:
        try:
            model_data.fetch(self._model, self._root, client)
            container.start()
            while not container.ready:
                container.check_start()
                if not container.ready and self.stopping.wait(_LOOK_SECONDS):
                    raise StoppedError
        except ModelDataError as error:
            raise JobError(f"ClientError: {error}") from error
        except StartError as error:
            raise JobError(f"AlgorithmError: {error}") from error

    def _transform(
        self, container: Container, objects: Objects, items: list[s3.Item], concurrency: int
    ) -> None:
        at_once = min(concurrency, len(items), _OBJECTS)
        window = -(-concurrency // at_once)
        with ThreadPoolExecutor(at_once, "transform-object") as pool:
            waiting = {pool.submit(self._one, objects, item, window) for item in items}
            reasons = []
            while waiting:
                done, waiting = wait(waiting, _LOOK_SECONDS)
                reasons += [reason for one in done if (reason := one.result()) is not None]
                if self.stopping.is_set():
                    # Ends the requests in flight, and with them the threads.
                    container.stop()
                    raise StoppedError
                container.check()
        if reasons:
            raise JobError(reasons[0])

    def _one(self, objects: Objects, item: s3.Item, window: int) -> str | None:
        if self.stopping.is_set():
            return None
        try:
            return objects.transform(item, window)
        except StoppedError:
            return None


def variables(request: Mapping[str, Any]) -> dict[str, str]:
    """What the platform tells the container: what the request says, and nothing else."""
    told = {"SAGEMAKER_BATCH": "true"}
    if "MaxPayloadInMB" in request:
        told["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(request["MaxPayloadInMB"])
    if "MaxConcurrentTransforms" in request:
        told["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(request["MaxConcurrentTransforms"])
    if strategy := request.get("BatchStrategy"):
        spelled = {"MultiRecord": "MULTI_RECORD", "SingleRecord": "SINGLE_RECORD"}
        told["SAGEMAKER_BATCH_STRATEGY"] = spelled[strategy]
    return told
