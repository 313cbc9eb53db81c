"""FastAPI: an ``async`` endpoint, since a forward pass is shorter than a hop to a thread."""

import digits
from fastapi import FastAPI, Request, Response

app = FastAPI()
model = digits.load()


@app.get("/ping")
async def ping() -> Response:
    return Response()


@app.post("/invocations")
async def invocations(request: Request) -> Response:
    images = digits.decode(await request.body(), request.headers.get("content-type"))
    output = digits.predict(model, images)
    return Response(digits.encode(output), media_type="application/json")
