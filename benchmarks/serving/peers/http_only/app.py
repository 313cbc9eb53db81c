"""HTTP alone: reads the body, always answers the same bytes. No model, no decoding."""

from typing import Any

ANSWER = b"[[" + b",".join([b"-2.3025851"] * 10) + b"]]"
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode()),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
