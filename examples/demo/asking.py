"""The client's side of the server: wait for ``/ping``, send digits to ``/invocations``."""

from __future__ import annotations

import http.client
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from examples.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from byoc.local.runners.base import Running

#: MNIST's mean and standard deviation: the article's client sends normalised tensors.
MEAN, DEVIATION = 0.1307, 0.3081
#: The platform gives a container this long to answer its first ping (contract section 7.1).
START_SECONDS = 480


@dataclass(frozen=True)
class Answer:
    """What the server said of one digit."""

    probabilities: list[float]
    milliseconds: float

    @property
    def digit(self) -> int:
        """The most likely digit."""
        return int(np.argmax(self.probabilities))


def wait_until_ready(server: Running, on_state: Callable[[str], None]) -> float:
    """Ask ``/ping`` until it says 200; the seconds that took.

    Raises:
        DemoError: the server ended, or was not ready in time.
    """
    started = time.monotonic()
    while (waited := time.monotonic() - started) < START_SECONDS:
        if (code := server.poll()) is not None:
            raise DemoError(f"serve ended with exit code {code}", "its last lines say why")
        try:
            status, body = _request(server, "GET", "/ping")
        except OSError:
            on_state("starting")
        else:
            if status == 200:
                return waited
            on_state(_message(body))
        time.sleep(0.1)
    raise DemoError(f"no successful /ping within {START_SECONDS} s", "see the server's log")


def ask(server: Running, image: NDArray[np.uint8]) -> Answer:
    """Send one image ``[28, 28]`` as the normalised tensor ``[1, 1, 28, 28]`` in JSON."""
    tensor = (image[None, None].astype(np.float32) / 255 - MEAN) / DEVIATION
    started = time.monotonic()
    status, body = _request(server, "POST", "/invocations", json.dumps(tensor.tolist()).encode())
    milliseconds = 1000 * (time.monotonic() - started)
    if status != 200:
        raise DemoError(f"/invocations answered {status}: {_message(body)}", "see its log")
    return Answer([math.exp(value) for value in json.loads(body)[0]], milliseconds)


def _request(
    server: Running, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=70)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def _message(body: bytes) -> str:
    """The one sentence of an error, or the cause that ``/ping`` gives while it is not 200."""
    try:
        answer = json.loads(body)
        return str(answer["cause"] if "cause" in answer else answer["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace").strip()
