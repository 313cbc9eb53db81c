"""What the programs of SDK v2's user share: a role, digits, patience, and the last line.

The SDK asks for a job every 30 s and for an endpoint as often, whatever they need. So a clock that
runs faster is put into the modules that wait; all that is sent and read stays the SDK's own.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import botocore.waiter
import sagemaker.predictor_async
import sagemaker.session

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = "arn:aws:iam::123456789012:role/service-role/local"
INSTANCE = "ml.m5.large"


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
