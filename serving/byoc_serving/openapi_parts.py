"""What the OpenAPI documents of all servers are made of."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

from byoc_serving.errors import MethodNotAllowedError
from byoc_serving.exchange import ERROR_BODY_LIMIT, JSON, Response, error_response, request_id

ERRORS = {
    400: "The body is not what its type says.",
    405: "The path does not take this method; `Allow` names those that it takes.",
    406: "The answer cannot be given in an accepted type.",
    408: "The body did not arrive.",
    413: "The body is over the limit.",
    415: "The body's type is not understood.",
    422: "The body is well formed, and the model refuses it.",
    500: "The handler failed; the log has the details under the request's id.",
    503: "Loading, full, or stopping; try again after `Retry-After` seconds.",
    504: "The answer would have come too late.",
}


def answer(method: str, document: dict[str, Any]) -> Response:
    """The answer to a request for ``/openapi.json``."""
    if method not in {"GET", "HEAD"}:
        refused = MethodNotAllowedError(method, "/openapi.json", "GET, HEAD")
        return error_response(refused, request_id())
    return Response(200, json.dumps(document, ensure_ascii=False).encode())


def served(
    about: str, paths: dict[str, Any], schemas: dict[str, Any], *, metrics: bool
) -> dict[str, Any]:
    """The document of a server.

    Args:
        about: what it serves.
        paths: of its own kind; those that all servers have are added.
        schemas: that the paths refer to.
        metrics: whether ``/metrics`` is there.
    """
    common: dict[str, Any] = {
        "/ping": {"get": ping("ping"), "post": ping("pingByPost"), "head": ping("pingHead")},
        "/openapi.json": {"get": read("openapi", "This document.", {JSON: {"schema": {}}})},
    }
    if metrics:
        text = {"schema": {"type": "string"}}
        common["/metrics"] = {
            "get": read(
                "metrics",
                "Prometheus' text format, or OpenMetrics where it is accepted.",
                {"text/plain": text, "application/openmetrics-text": text},
            )
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SageMaker endpoint",
            "version": metadata.version("sagemaker-byoc"),
            "description": about,
        },
        "paths": {**common, **paths},
        "components": {"schemas": schemas},
    }


def read(name: str, text: str, content: dict[str, Any]) -> dict[str, Any]:
    """A route that is only read."""
    return {
        "operationId": name,
        "summary": text,
        "responses": {"200": {"description": text, "content": content}, "405": error(405)},
    }


def ping(name: str) -> dict[str, Any]:
    """``/ping``, by one method."""

    def state(text: str, schema: str) -> dict[str, Any]:
        return {"description": text, "content": {JSON: {"schema": ref(schema)}}}

    return {
        "operationId": name,
        "summary": "Whether the server can answer invocations.",
        "responses": {
            "200": state("It can.", "Ready"),
            "503": {
                **state("It cannot yet, or no more.", "NotReady"),
                "headers": {"Retry-After": header("Seconds to wait.", {"type": "integer"})},
            },
            "405": error(405),
        },
    }


def parameter(name: str, text: str) -> dict[str, Any]:
    """A header of a request."""
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def header(text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """A header of an answer."""
    return {"description": text, "schema": schema or {"type": "string"}}


def ref(name: str) -> dict[str, str]:
    """A schema of ``SCHEMAS``."""
    return {"$ref": f"#/components/schemas/{name}"}


def error(status: int, text: str = "") -> dict[str, Any]:
    """The answer of an error, in words of its own where ``ERRORS`` has none."""
    response: dict[str, Any] = {
        "description": text or ERRORS[status],
        "content": {JSON: {"schema": ref("Error")}},
    }
    if status == 503:
        response["headers"] = {"Retry-After": header("Seconds to wait.", {"type": "integer"})}
    if status == 405:
        response["headers"] = {"Allow": header("The methods that the path takes.")}
    return response


def fields(required: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has all of these members and no others."""
    return {
        "type": "object",
        "properties": required,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
SCHEMAS: dict[str, Any] = {
    "Error": {
        **fields({"error": fields({"code": TEXT, "message": TEXT, "request_id": TEXT})}),
        "description": f"Always shorter than {ERROR_BODY_LIMIT} bytes.",
    },
    "Ready": fields({"status": {"const": "ready"}}),
    "NotReady": fields({"status": {"enum": ["loading", "failed", "stopping"]}, "cause": TEXT}),
    "ExecutionParameters": fields(
        {
            "MaxConcurrentTransforms": {"type": "integer", "minimum": 1},
            "BatchStrategy": {"enum": ["MULTI_RECORD", "SINGLE_RECORD"]},
            "MaxPayloadInMB": {"type": "integer", "minimum": 0},
        }
    ),
    "Array": {
        "description": "Numbers in nested arrays of equal lengths; becomes one float32 array.",
        "type": "array",
        "minItems": 1,
        "items": {
            "anyOf": [{"type": ["number", "boolean"]}, {"$ref": "#/components/schemas/Array"}]
        },
    },
    "Instances": {
        "description": "An array, alone or as one of the members `instances` and `inputs`.",
        "oneOf": [
            {"$ref": "#/components/schemas/Array"},
            {
                "type": "object",
                "required": ["instances"],
                "properties": {
                    "instances": {"$ref": "#/components/schemas/Array"},
                    "inputs": False,
                },
            },
            {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "inputs": {"$ref": "#/components/schemas/Array"},
                    "instances": False,
                },
            },
        ],
    },
}
