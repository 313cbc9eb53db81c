"""``make bench-gpu``: ``serve`` on one GPU against its goals.

Two loads by wrk: single images as npy over many connections, and requests of 256 images. Ends with
0 when every goal is met, 1 when one is missed or an answer is wrong, 2 when there is no GPU or no
wrk. wrk shares the cores with the server.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.serving import model, wrk
from benchmarks.serving.processes import Processes, end_on_sigterm, free_ports
from byoc_serving.machine import visible_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUESTS_A_SECOND = 20_000.0
IMAGES_A_SECOND = 500_000.0
P99_MS = 10.0
MANY = 256
#: TF32 keeps 10 bits of a factor, bfloat16 7; a share of the largest answer.
TOLERANCE = {"bf16": 0.1}
NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
START_S = 300.0
WARM_UP_S = 5.0
_NOT_INHERITED = ("BYOC_", "SAGEMAKER_", "OMP_", "MKL_", "GUNICORN_", "PYTHON")


@dataclass(frozen=True)
class Shape:
    """One load.

    Attributes:
        name: what is printed.
        images: in each request.
        connections: kept alive.
        wanted_a_second: the goal in ``unit``s.
        unit: ``requests`` or ``images``.
    """

    name: str
    images: int
    connections: int
    wanted_a_second: float
    unit: str


class WrongAnswerError(Exception):
    """The server answers, and not what the model says."""


class Subject:
    """The server that is measured."""

    def __init__(self, work: Path, sample: model.Sample, optimize: str) -> None:
        model.install(sample, work / "ml")
        (self.port,) = free_ports(1)
        environ = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
        environ |= {
            "BYOC_ROOT": str(work / "ml"),
            "BYOC_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "BYOC_TOPOLOGY": "isolated",
            "BYOC_OPTIMIZE": optimize,
            "BYOC_MAX_BATCH_SIZE": "256",
            "BYOC_QUEUE_SIZE": "4096",
            "PYTHONPATH": f"{model.ROOT}:{model.ROOT / 'serving'}",
        }
        command = [str(Path(sys.executable).with_name("serve"))]
        self.processes = Processes(command, environ, work, work / "serve.log")
        self._sample = sample
        self._tolerance = TOLERANCE.get(optimize, 1e-2)

    def wait(self) -> float:
        """Seconds to the first right answer."""
        began = time.monotonic()
        while time.monotonic() - began < START_S and self.processes.code is None:
            try:
                if self._ask("GET", "/ping", b"").status == 200:
                    self.check(1)
                    return time.monotonic() - began
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise WrongAnswerError(f"serve does not start: {self.processes.tail()}")

    def _ask(self, method: str, path: str, body: bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, NPY)
        return connection.getresponse()

    def check(self, images: int) -> None:
        """Compare the answers to all bodies of a load.

        Raises:
            WrongAnswerError: one is wrong.
        """
        answers = np.asarray(self._sample.answers, np.float32)
        for number, body in enumerate(self.bodies(images)):
            response = self._ask("POST", "/invocations", body)
            content = response.read()
            if response.status != 200:
                raise WrongAnswerError(f"status {response.status}: {content[:300]!r}")
            seen = np.load(io.BytesIO(content))
            wanted = answers[(np.arange(images) + number) % model.IMAGES]
            worst = float(abs(seen - wanted).max() / abs(answers).max())
            if seen.shape != wanted.shape or worst > self._tolerance:
                raise WrongAnswerError(f"{images} images: answers differ by {worst:.1e}")

    def bodies(self, images: int) -> list[bytes]:
        """Requests of so many images each."""
        every = np.asarray(self._sample.images, np.float32)[:, 0]
        made = []
        for number in range(model.IMAGES if images == 1 else 4):
            buffer = io.BytesIO()
            np.save(buffer, every[(np.arange(images) + number) % model.IMAGES])
            made.append(buffer.getvalue())
        return made

    def load(self, shape: Shape, work: Path, seconds: float, threads: int) -> wrk.Load:
        """wrk's figures."""
        headers: Mapping[str, str] = NPY
        requests = [(body, headers) for body in self.bodies(shape.images)]
        url, folder = f"http://127.0.0.1:{self.port}", work / f"wrk-{shape.images}"
        return wrk.run(
            url, "/invocations", requests, folder, shape.connections, seconds, threads=threads
        )


def verdict(shape: Shape, load: wrk.Load) -> tuple[bool, str]:
    """Whether a load meets its goals, and the line that says so."""
    rate = load.rate * (shape.images if shape.unit == "images" else 1)
    met = rate >= shape.wanted_a_second and load.p99_ms <= P99_MS and not load.errors
    return met, (
        f"{'met   ' if met else 'MISSED'}  {shape.name}: {load.rate:,.0f} requests/s, "
        f"{load.rate * shape.images:,.0f} images/s, p50 {load.p50_ms:.2f} ms, "
        f"p99 {load.p99_ms:.2f} ms, {load.errors} errors (goal: at least "
        f"{shape.wanted_a_second:,.0f} {shape.unit}/s, p99 at most {P99_MS:g} ms)"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load (default 8)")
    parser.add_argument("--optimize", default="freeze", help="BYOC_OPTIMIZE (default freeze)")
    parser.add_argument("--connections", type=int, default=128, help="single images (default 128)")
    parser.add_argument("--large", type=int, default=16, help="connections of 256 (default 16)")
    parser.add_argument("--threads", type=int, default=4, help="wrk's (default 4)")
    parser.add_argument("--cache", type=Path, default=model.ROOT / "build" / "bench-gpu")
    return parser.parse_args()


def missing() -> str:
    """What a measurement here lacks; empty: nothing."""
    if not visible_gpus(os.environ):
        return "no NVIDIA GPU is visible (no /dev/nvidia[0-9]*, or CUDA_VISIBLE_DEVICES hides it)"
    if shutil.which("wrk") is None:
        return "wrk is not on PATH; install it: apt-get install wrk"
    return ""


def main() -> None:
    """Measure, print, judge."""
    args = arguments()
    if lack := missing():
        print(f"nothing measured: {lack}", file=sys.stderr)
        sys.exit(2)
    end_on_sigterm()
    work = args.cache.resolve()
    sample = model.prepare(work / "model")
    shapes = (
        Shape("single images", 1, args.connections, REQUESTS_A_SECOND, "requests"),
        Shape(f"{MANY} images a request", MANY, args.large, IMAGES_A_SECOND, "images"),
    )
    subject = Subject(work, sample, args.optimize)
    verdicts: list[tuple[bool, str]] = []
    try:
        print(f"first right answer after {subject.wait():.1f} s, BYOC_OPTIMIZE={args.optimize}")
        for shape in shapes:
            subject.check(shape.images)
            # Forms are chosen and graphs captured during the first requests.
            subject.load(shape, work, WARM_UP_S, args.threads)
            load = subject.load(shape, work, args.seconds, args.threads)
            subject.check(shape.images)
            verdicts.append(verdict(shape, load))
            print(verdicts[-1][1], flush=True)
    except (WrongAnswerError, RuntimeError) as error:
        print(f"MISSED  {error}; log: {subject.processes.tail()}", file=sys.stderr)
        sys.exit(1)
    finally:
        subject.processes.stop()
    content = [{"met": met, "line": line} for met, line in verdicts]
    (work / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(0 if all(met for met, _ in verdicts) else 1)


if __name__ == "__main__":
    main()
