"""The SageMaker toolkit's functions; everything else is its own defaults."""

from typing import Any

import digits


def model_fn(model_dir: str) -> Any:
    return digits.load()


def input_fn(body: Any, content_type: str) -> Any:
    return digits.decode(body.encode() if isinstance(body, str) else bytes(body), content_type)


def predict_fn(images: Any, model: Any) -> Any:
    return digits.predict(model, images)


def output_fn(output: Any, accept: str) -> bytes:
    return digits.encode(output)
