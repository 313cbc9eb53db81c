"""Flask, as Amazon's own "bring your own container" example has it."""

import digits
from flask import Flask, Response, request

app = Flask(__name__)
model = digits.load()


@app.get("/ping")
def ping() -> Response:
    return Response()


@app.post("/invocations")
def invocations() -> Response:
    images = digits.decode(request.get_data(), request.content_type)
    return Response(digits.encode(digits.predict(model, images)), mimetype="application/json")
