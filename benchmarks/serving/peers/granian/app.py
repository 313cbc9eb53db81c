"""granian: a Rust front, its own RSGI interface, the forward pass on its event loop."""

from typing import Any

import digits

model = digits.load()
HEADERS = [("content-type", "application/json")]


async def app(scope: Any, protocol: Any) -> None:
    body = await protocol()
    images = digits.decode(body, scope.headers.get("content-type"))
    protocol.response_bytes(200, HEADERS, digits.encode(digits.predict(model, images)))
