"""BentoML: the service batches by itself, one worker a core."""

import os
from typing import Annotated

import bentoml
import digits
import numpy as np
from bentoml.validators import DType


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Digits:
    def __init__(self) -> None:
        self.model = digits.load()

    @bentoml.api(route="/invocations", batchable=True, max_batch_size=digits.BATCH)
    def invocations(
        self, images: Annotated[np.ndarray, DType("float32")]
    ) -> Annotated[np.ndarray, DType("float32")]:
        return digits.predict(self.model, np.ascontiguousarray(images, dtype=np.float32))
