"""The OpenAPI document of a multi-model server says what it does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

if TYPE_CHECKING:
    from tests.serving.conftest import Models


def test_every_listed_route_answers_as_listed(models: Models):
    document = models.server.request("GET", "/openapi.json").json
    OpenAPIV31SpecValidator(document).validate()
    assert "/invocations" not in document["paths"]
    asked = set()

    def ask(method: str, path: str, status: int, body: Any = None) -> None:
        responses = document["paths"][path][method]["responses"]
        sent = None if body is None else json.dumps(body)
        answer = models.server.request(
            method.upper(),
            path.replace("{name}", "one"),
            sent,
            {"Content-Type": "application/json"},
        )
        assert answer.status == status
        assert str(status) in responses
        schema = responses[str(status)]["content"].get("application/json", {}).get("schema")
        if schema:
            root = {**schema, "components": document["components"]}
            jsonschema.validate(answer.json, root)
        asked.add((method, path))

    load = {"model_name": "one", "url": models.write()}
    ask("post", "/models", 400, {"model_name": "one"})
    ask("get", "/models/{name}", 404)
    ask("post", "/models/{name}/invoke", 404, [[1]])
    ask("post", "/models", 200, load)
    ask("post", "/models", 409, load)
    ask("get", "/models", 200)
    ask("get", "/models/{name}", 200)
    ask("post", "/models/{name}/invoke", 200, [[1]])
    ask("post", "/models/{name}/invoke", 400, "not an array")
    ask("delete", "/models/{name}", 200)
    ask("delete", "/models/{name}", 404)
    listed = {
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/models") and method != "parameters"
    }
    assert asked == listed
    assert models.server.request("POST", "/openapi.json", b"").status == 405
