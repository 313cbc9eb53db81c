"""LitServe: batches, two workers, its quicker queue."""

import os
from typing import Any

import digits
import litserve
import numpy as np


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = digits.load()

    def decode_request(self, request) -> Any:
        # Its front has parsed the JSON.
        return np.asarray(request, dtype=np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def predict(self, inputs: list[Any]) -> list[Any]:
        return digits.predict_batch(self.model, inputs)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output):
        return output.tolist()


if __name__ == "__main__":
    workers = int(os.environ["BENCH_WORKERS"])
    api = Digits(
        max_batch_size=digits.BATCH, batch_timeout=digits.BATCH_WAIT_S, api_path="/invocations"
    )
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=workers, fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=workers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
