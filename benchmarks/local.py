"""What the local endpoint costs: its start, and each invocation beside the container itself.

    PYTHONPATH=.:serving .venv/bin/python -m benchmarks.local --cache /tmp/model --output local.json

Goals: ready within 1.5 s; at one connection at most 2 ms more at the median than the container
asked directly; at least 1,000 right invocations a second on 32 connections. wrk asks; the model
is the MNIST network with random weights, and a request one image as JSON. Container and endpoint
take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.serving import catalog, machine, model, wrk
from byoc.packaging import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

GOAL_READY_S, GOAL_OVERHEAD_MS, GOAL_RATE = 1.5, 2.0, 1000.0
ROLE = "arn:aws:iam::123456789012:role/local"
NAME, BUCKET = "digits", "digits"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cache", type=Path, default=Path("build/benchmark"))
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each run")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--starts", type=int, default=5)
    arguments.add_argument("--output", type=Path)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="byoc-local-") as folder:
        found = measure(Path(folder), chosen)
    print(json.dumps(found, indent=2))
    if chosen.output:
        chosen.output.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(met for _, _, met in found["goals"].values()) else 1)


def measure(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    sample = model.prepare(chosen.cache.resolve())
    starts = []
    for number in range(chosen.starts):
        with running(folder / f"start-{number}") as (_, seconds):
            starts.append(seconds)
    with running(folder / "home") as (url, _):
        root = deploy(folder, sample, url)
        direct = f"http://127.0.0.1:{port_of(root)}"
        through = f"/endpoints/{NAME}/invocations"
        peer = catalog.OURS[0]
        bodies = [sample.body(peer, catalog.JSON, number) for number in range(8)]
        check(sample, url + through, bodies[0])
        runs: dict[str, list[wrk.Load]] = {}
        for _ in range(chosen.rounds):
            for connections in (1, 32):
                for way, base, route in (
                    ("container", direct, "/invocations"),
                    ("endpoint", url, through),
                ):
                    load = wrk.run(base, route, bodies, folder / "wrk", connections, chosen.seconds)
                    runs.setdefault(f"{way} {connections}", []).append(load)
    median = {
        name: {
            "rate": round(statistics.median(load.rate for load in loads), 1),
            "p50_ms": round(statistics.median(load.p50_ms for load in loads), 3),
            "p99_ms": round(statistics.median(load.p99_ms for load in loads), 3),
            "errors": sum(load.errors for load in loads),
        }
        for name, loads in runs.items()
    }
    ready = statistics.median(starts)
    overhead = median["endpoint 1"]["p50_ms"] - median["container 1"]["p50_ms"]
    rate = median["endpoint 32"]["rate"]
    failed = sum(one["errors"] for one in median.values())
    return {
        **machine.describe(),
        "load": os.getloadavg(),
        "starts_s": [round(seconds, 3) for seconds in starts],
        "runs": median,
        "goals": {
            "ready_s": [round(ready, 3), GOAL_READY_S, ready <= GOAL_READY_S],
            "overhead_ms": [round(overhead, 3), GOAL_OVERHEAD_MS, overhead <= GOAL_OVERHEAD_MS],
            "rate": [rate, GOAL_RATE, rate >= GOAL_RATE],
            "errors": [failed, 0, failed == 0],
        },
    }


@contextmanager
def running(home: Path, runner: str = "process") -> Iterator[tuple[str, float]]:
    """A local endpoint: its URL, and the seconds from its command to its first answer."""
    byoc = Path(sys.executable).with_name("byoc")
    begun = time.monotonic()
    with subprocess.Popen(
        [str(byoc), "local", "up", "--runner", runner],
        env={**os.environ, "BYOC_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().partition("=")[2]
            with urllib.request.urlopen(f"{url}/_byoc/health") as answer:
                answer.read()
            yield url, time.monotonic() - begun
        finally:
            process.terminate()
            process.wait(120)


def client(service: str, url: str) -> Any:
    """A client of boto3, pointed at an endpoint."""
    from boto3.session import Session  # noqa: PLC0415 - not part of what is timed before

    made: Any = Session()
    return made.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def deploy(folder: Path, sample: model.Sample, url: str) -> Path:
    """Host the model on one container; its root."""
    model.install(sample, folder / "content")
    pack(folder / "content" / "model", folder / "model.tar.gz")
    s3, sagemaker = client("s3", url), client("sagemaker", url)
    s3.create_bucket(Bucket=BUCKET)
    s3.upload_file(str(folder / "model.tar.gz"), BUCKET, "model.tar.gz")
    container = {"Image": "inference", "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}
    sagemaker.create_model(ModelName=NAME, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {
        "VariantName": "all",
        "ModelName": NAME,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    return folder / "home" / "work" / "endpoints" / NAME


def port_of(root: Path) -> int:
    """Where the container below a root listens."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found = dict(one.partition(b"=")[::2] for one in environ)
        if found.get(b"BYOC_ROOT", b"").startswith(f"{root}/".encode()):
            return int(found[b"SAGEMAKER_BIND_TO_PORT"])
    raise RuntimeError(f"no container serves from {root}")


def check(sample: model.Sample, url: str, request: tuple[bytes, Any]) -> None:
    """The answers that are counted are the model's."""
    asked = urllib.request.Request(url, request[0], dict(request[1]))
    with urllib.request.urlopen(asked) as answer:
        body = answer.read()
    if not sample.right(catalog.OURS[0], body, 0):
        raise RuntimeError(f"wrong answer: {body[:200]!r}")


if __name__ == "__main__":
    main()
