"""The objects of a transform job: each read, sent, put together and stored."""

from __future__ import annotations

import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc.local import s3
from byoc.local.transform import records
from byoc.local.transform.requests import RequestError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from byoc.local.transform.requests import Parameters, Requests


def listed(job: Mapping[str, Any], client: Any) -> list[s3.Item]:
    """The input's objects.

    Raises:
        S3Error: There are none.
    """
    source = job["TransformInput"]["DataSource"]["S3DataSource"]
    find = s3.in_manifest if source["S3DataType"] == "ManifestFile" else s3.below
    found = [item for item in find(client, source["S3Uri"]) if item.name.rpartition("/")[2]]
    if not found:
        raise s3.S3Error(f"There is no object at {source['S3Uri']}")
    return found


class Objects:
    """Transforms objects, several at once where there are several.

    Args:
        job: The request of CreateTransformJob.
        client: Of S3.
        requests: To the container.
        how: The job's parameters.
        tell: Takes a line for the job's data log.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        client: Any,
        requests: Requests,
        how: Parameters,
        tell: Callable[[str], None],
    ) -> None:
        given, output = job["TransformInput"], job["TransformOutput"]
        self._split = given.get("SplitType", "None")
        self._zipped = given.get("CompressionType", "None") == "Gzip"
        self._path = output["S3OutputPath"].rstrip("/")
        self._lines = output.get("AssembleWith", "None") == "Line"
        self._client, self._requests, self._how, self._tell = client, requests, how, tell
        self._sender = ThreadPoolExecutor(how.concurrency, "transform-request")

    def transform(self, item: s3.Item, window: int) -> str | None:
        """Transform one object; why it could not be done, or None.

        Args:
            item: The object.
            window: Its requests at once.

        Raises:
            StoppedError: The job is being stopped.
        """
        name = f"{item.bucket}/{item.key}"
        try:
            with tempfile.NamedTemporaryFile(prefix="byoc-transform-") as file:
                answers = self._answers(item, window)
                for part in records.assembled(answers, lines=self._lines):
                    file.write(part)
                file.flush()
                s3.store(self._client, Path(file.name), f"{self._path}/{item.name}.out")
        except RequestError as error:
            kind = "ClientError" if error.client else "AlgorithmError"
            words = f"{kind}: {name}: {error}"
        except records.RecordError as error:
            words = f"ClientError: {name}: {error}"
        except (s3.S3Error, OSError) as error:
            words = f"ClientError: {name}: {error}"
        else:
            return None
        self._tell(words)
        return words

    def close(self) -> None:
        """Send nothing more."""
        self._sender.shutdown(wait=False, cancel_futures=True)

    def _answers(self, item: s3.Item, window: int) -> Iterator[bytes]:
        """The container's answers in the order of the records, ``window`` asked ahead."""
        waiting: deque[Future[bytes]] = deque()
        try:
            for body in self._bodies(item):
                if len(waiting) == window:
                    yield waiting.popleft().result()
                waiting.append(self._submit(body))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, body: Callable[[], bytes | Iterable[bytes]]) -> Future[bytes]:
        try:
            return self._sender.submit(self._requests.send, body)
        except RuntimeError:  # it has been closed
            raise StoppedError from None

    def _bodies(self, item: s3.Item) -> Iterator[Callable[[], bytes | Iterable[bytes]]]:
        if self._how.most is None and self._split == "None":
            # However large: never in memory, and again from S3 for another try.
            yield lambda: self._chunks(item)
            return
        for body in records.payloads(
            self._chunks(item), split=self._split, several=self._how.several, most=self._how.most
        ):
            yield _constant(body)

    def _chunks(self, item: s3.Item) -> Iterable[bytes]:
        chunks = s3.stream(self._client, item)
        return records.unzipped(chunks) if self._zipped else chunks


def _constant(body: bytes) -> Callable[[], bytes]:
    return lambda: body
