"""``GET /openapi.json``: this server's routes, for the model that it has loaded (OpenAPI 3.1)."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

from byoc_serving import codecs
from byoc_serving.errors import MethodNotAllowedError
from byoc_serving.exchange import ERROR_BODY_LIMIT, JSON, Response, error_response, request_id

if TYPE_CHECKING:
    from byoc_serving.description import Description
    from byoc_serving.sample import Sample
    from byoc_serving.settings import Settings

#: The default functions' types.
_INPUTS: dict[str, Any] = {
    JSON: {"schema": {"$ref": "#/components/schemas/Instances"}},
    **{kind: {} for kind in codecs.INPUT_TYPES if kind != JSON},
}
_OUTPUTS: dict[str, Any] = {kind: {} for kind in codecs.OUTPUT_TYPES}
_ERRORS = {
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


def answer(
    method: str, settings: Settings, description: Description, sample: Sample | None
) -> Response:
    """The answer to a request for ``/openapi.json``."""
    if method not in {"GET", "HEAD"}:
        refused = MethodNotAllowedError(method, "/openapi.json", "GET, HEAD")
        return error_response(refused, request_id())
    content = document(settings, description, sample)
    return Response(200, json.dumps(content, ensure_ascii=False).encode())


def document(settings: Settings, description: Description, sample: Sample | None) -> dict[str, Any]:
    """The document.

    Args:
        settings: which routes there are, and the limits.
        description: the loaded model; its own functions decide about types.
        sample: shown as the example of a request's body.
    """
    paths: dict[str, Any] = {
        "/ping": {"get": _ping("ping"), "post": _ping("pingByPost"), "head": _ping("pingHead")},
        "/invocations": {"post": _invocations(settings, description, sample)},
        "/openapi.json": {"get": _read("openapi", "This document.", {JSON: {"schema": {}}})},
    }
    if settings.metrics:
        text = {"schema": {"type": "string"}}
        paths["/metrics"] = {
            "get": _read(
                "metrics",
                "Prometheus' text format, or OpenMetrics where it is accepted.",
                {"text/plain": text, "application/openmetrics-text": text},
            )
        }
    if settings.execution_parameters:
        paths["/execution-parameters"] = {
            "get": _read(
                "executionParameters",
                "How a batch transform job should send its records.",
                {JSON: {"schema": _ref("ExecutionParameters")}},
            )
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SageMaker endpoint",
            "version": metadata.version("sagemaker-byoc"),
            "description": (
                f"Model {settings.model_dir} with {description.origin} on {description.device}."
            ),
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _read(name: str, text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "responses": {"200": {"description": text, "content": content}, "405": _error(405)},
    }


def _ping(name: str) -> dict[str, Any]:
    def state(text: str, schema: str) -> dict[str, Any]:
        return {"description": text, "content": {JSON: {"schema": _ref(schema)}}}

    return {
        "operationId": name,
        "summary": "Whether the server can answer invocations.",
        "responses": {
            "200": state("It can.", "Ready"),
            "503": {
                **state("It cannot yet, or no more.", "NotReady"),
                "headers": {"Retry-After": _header("Seconds to wait.", {"type": "integer"})},
            },
            "405": _error(405),
        },
    }


def _invocations(
    settings: Settings, description: Description, sample: Sample | None
) -> dict[str, Any]:
    own = set(description.functions)
    any_type: dict[str, Any] = {"*/*": {}}
    reads = any_type if own & {"input_fn", "transform_fn"} else _INPUTS
    if sample is not None and sample.text is not None:
        shown = sample.text
        value = json.loads(shown) if sample.content_type == JSON and _is_json(shown) else shown
        known = reads.get(sample.content_type, {})
        reads = {**reads, sample.content_type: {**known, "example": value}}
    responses: dict[str, Any] = {
        "200": {
            "description": "The prediction, in the type that `Accept` prefers.",
            "headers": {"X-Amzn-SageMaker-Custom-Attributes": _header("What the handler set.")},
            "content": any_type if own & {"output_fn", "transform_fn"} else _OUTPUTS,
        },
        **{str(status): _error(status) for status in _ERRORS},
    }
    if own & {"input_fn", "predict_fn", "output_fn", "transform_fn"}:
        # A handler may set any status.
        responses["default"] = {"description": "What the handler answered.", "content": any_type}
    return {
        "operationId": "invoke",
        "summary": "Ask the model.",
        "parameters": [
            _parameter("X-Amzn-SageMaker-Custom-Attributes", "Handed to the handler."),
            _parameter(
                "X-Amzn-SageMaker-Inference-Id",
                "Names the request in the log; one that is not visible ASCII is replaced.",
            ),
        ],
        "requestBody": {
            "required": True,
            "description": (
                f"At most {settings.max_body_bytes} bytes. Without a Content-Type it is read as "
                f"{JSON}."
            ),
            "content": reads,
        },
        "responses": responses,
    }


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parameter(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _header(text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": text, "schema": schema or {"type": "string"}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _error(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _ERRORS[status],
        "content": {JSON: {"schema": _ref("Error")}},
    }
    if status == 503:
        response["headers"] = {"Retry-After": _header("Seconds to wait.", {"type": "integer"})}
    if status == 405:
        response["headers"] = {"Allow": _header("The methods that the path takes.")}
    return response


def _object(required: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
_SCHEMAS: dict[str, Any] = {
    "Error": {
        **_object({"error": _object({"code": _TEXT, "message": _TEXT, "request_id": _TEXT})}),
        "description": f"Always shorter than {ERROR_BODY_LIMIT} bytes.",
    },
    "Ready": _object({"status": {"const": "ready"}}),
    "NotReady": _object({"status": {"enum": ["loading", "failed", "stopping"]}, "cause": _TEXT}),
    "ExecutionParameters": _object(
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
