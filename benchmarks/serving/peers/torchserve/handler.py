"""TorchServe: a handler that is given a batch, and decodes each body itself."""

from typing import Any

import digits


class Digits:
    def __init__(self) -> None:
        self.model: Any = None

    def initialize(self, context: Any) -> None:
        self.model = digits.load()

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[bytes]:
        images = [
            digits.decode(
                bytes(request.get("body") or request.get("data")),
                context.get_request_header(number, "Content-Type"),
            )
            for number, request in enumerate(requests)
        ]
        context.set_all_response_status(200, "OK")
        for number in range(len(requests)):
            context.set_response_content_type(number, "application/json")
        return [digits.encode(output) for output in digits.predict_batch(self.model, images)]
