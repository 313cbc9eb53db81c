"""TorchServe: a handler that is given a batch; bodies arrive decoded when they are JSON."""

from typing import Any

import digits
import numpy as np


class Digits:
    def __init__(self) -> None:
        self.model: Any = None

    def initialize(self, context: Any) -> None:
        self.model = digits.load()

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[list[Any]]:
        bodies = [request.get("body") or request.get("data") for request in requests]
        images = [
            digits.decode(bytes(body), digits.NPY)
            if isinstance(body, (bytes, bytearray))
            else np.asarray(body, dtype=np.float32)
            for body in bodies
        ]
        return [output.tolist() for output in digits.predict_batch(self.model, images)]
