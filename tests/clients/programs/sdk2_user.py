"""What the programs of SDK v2's user share: a role, digits, patience, and the last line.

The SDK asks for a job every 30 s and for an endpoint as often, whatever they need. So a clock that
runs faster is put into the modules that wait; all that is sent and read stays the SDK's own.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.waiter
import numpy as np
import sagemaker.predictor_async
import sagemaker.session

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = "arn:aws:iam::123456789012:role/service-role/local"
INSTANCE = "ml.m5.large"
#: MNIST's mean and standard deviation: what the example's network has been trained on.
MEAN, DEVIATION = 0.1307, 0.3081


class QuickClock:
    """``time``, so many times as fast."""

    factor = 30

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return time.time() * self.factor

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self.factor)


def new_session() -> sagemaker.Session:
    """One with a bucket of its own.

    Without it the SDK names the bucket after the account, and asks STS for that at an address that
    it puts together itself: neither AWS_ENDPOINT_URL nor AWS_ENDPOINT_URL_STS changes it.
    """
    return sagemaker.Session(default_bucket="sdk2-user")


for module in (
    botocore.waiter,
    sagemaker.predictor_async,
    sagemaker.session,
):
    vars(module)["time"] = QuickClock()


def digits(folder: str, count: int) -> tuple[np.ndarray, list[int]]:
    """The first test digits as the network wants them, ``[N, 1, 28, 28]``, and what they are."""
    images, labels = (
        np.frombuffer(gzip.decompress((Path(folder) / f"t10k-{name}-ubyte.gz").read_bytes()), "u1")
        for name in ("images-idx3", "labels-idx1")
    )
    pictures = images[16 : 16 + 784 * count].reshape(count, 1, 28, 28).astype("float32")
    return (pictures / 255 - MEAN) / DEVIATION, labels[8 : 8 + count].tolist()


def right(answers: Any, labels: list[int]) -> float:
    """The share of right answers among rows of ten log-probabilities."""
    rows = np.asarray(answers)
    assert rows.shape == (len(labels), 10), rows.shape
    return float(np.mean(rows.argmax(axis=1) == labels))


@contextlib.contextmanager
def heard() -> Iterator[io.StringIO]:
    """What is printed within, as the user would read it; printed at the end as well."""
    words = io.StringIO()
    try:
        with contextlib.redirect_stdout(words):
            yield words
    finally:
        print(words.getvalue(), flush=True)


def error_of(call: Any, *arguments: Any, **words: Any) -> dict[str, str]:
    """The error of a call that must fail: its class and its words."""
    try:
        call(*arguments, **words)
    except Exception as error:  # noqa: BLE001 - which it is, is what is tested
        return {"kind": type(error).__name__, "words": str(error)}
    return {"kind": "none", "words": ""}


def tell(**found: Any) -> None:
    """The last line."""
    sys.stderr.flush()
    print(f"\n{json.dumps(found, default=str)}", flush=True)
