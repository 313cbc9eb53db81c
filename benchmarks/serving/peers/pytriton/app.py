"""PyTriton: Triton with one Python instance a core and its dynamic batcher."""

import os
from typing import Any

import digits
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


class Instance:
    """Loads in the process that answers."""

    def __init__(self) -> None:
        self.model: Any = None

    @batch
    def __call__(self, images: Any) -> dict[str, Any]:
        if self.model is None:
            self.model = digits.load()
        return {"output": digits.predict(self.model, images)}


def main() -> None:
    port = int(os.environ["BENCH_PORT"])
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=[Instance() for _ in range(int(os.environ["BENCH_WORKERS"]))],
            inputs=[Tensor(name="images", dtype=np.float32, shape=(1, 28, 28))],
            outputs=[Tensor(name="output", dtype=np.float32, shape=(10,))],
            config=ModelConfig(
                max_batch_size=digits.BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=500),
            ),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
