"""Ray Serve: one replica a core, batches, access log off."""

import os
import signal
import threading
from typing import Any

import digits
import ray
from fastapi import Request, Response
from ray import serve

WORKERS = int(os.environ["BENCH_WORKERS"])


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=128,
    ray_actor_options={"num_cpus": 0.5},
    logging_config={"enable_access_log": False, "log_level": "WARNING"},
)
class Digits:
    def __init__(self) -> None:
        self.model = digits.load()

    @serve.batch(max_batch_size=digits.BATCH, batch_wait_timeout_s=digits.BATCH_WAIT_S)
    async def predict(self, inputs: list[Any]) -> list[Any]:
        return digits.predict_batch(self.model, inputs)

    async def __call__(self, request: Request) -> Response:
        images = digits.decode(await request.body(), request.headers.get("content-type"))
        output = await self.predict(images)
        return Response(digits.encode(output), media_type="application/json")


if __name__ == "__main__":
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=True)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(Digits.bind(), route_prefix="/invocations")
    stop.wait()
    serve.shutdown()
    ray.shutdown()
