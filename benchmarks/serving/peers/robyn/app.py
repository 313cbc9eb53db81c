"""Robyn: a Rust front, the forward pass on its event loop."""

import os

import digits
from robyn import Headers, Request, Response, Robyn

app = Robyn(__file__)
model = digits.load()
HEADERS = Headers({"content-type": "application/json"})


@app.post("/invocations")
async def invocations(request: Request) -> Response:
    body = request.body
    raw = body.encode() if isinstance(body, str) else bytes(body)
    images = digits.decode(raw, request.headers.get("content-type"))
    output = digits.encode(digits.predict(model, images))
    return Response(status_code=200, headers=HEADERS, description=output)


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]))
