"""``GET /openapi.json``: this server's routes, for the model that it has loaded (OpenAPI 3.1)."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

from byoc_serving import codecs
from byoc_serving.errors import MethodNotAllowedError
from byoc_serving.exchange import ERROR_BODY_LIMIT, JSON, Response, error_response, request_id

if TYPE_CHECKING:
    from collections.abc import Callable

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
    507: "There is no room on the disk for a long body.",
}
#: Further ones where there are stateful sessions.
_SESSION_ERRORS = {
    404: "There is no session of this id, or no longer.",
    409: "Another request of the session has been running for too long.",
}


def answer(method: str, document: Callable[[], dict[str, Any]]) -> Response:
    """The answer to a request for ``/openapi.json``.

    Args:
        method: the request's.
        document: makes the document.
    """
    if method not in {"GET", "HEAD"}:
        refused = MethodNotAllowedError(method, "/openapi.json", "GET, HEAD")
        return error_response(refused, request_id())
    return Response(200, json.dumps(document(), ensure_ascii=False).encode())


def document(settings: Settings, description: Description, sample: Sample | None) -> dict[str, Any]:
    """The document.

    Args:
        settings: which routes there are, and the limits.
        description: the loaded model; its own functions decide about types.
        sample: shown as the example of a request's body.
    """
    about = f"Model {settings.model_dir} with {description.origin} on {description.device}."
    invoke = invocation(settings, description.functions, sample)
    return whole(settings, about, {"/invocations": {"post": invoke}}, SCHEMAS)


def whole(
    settings: Settings, about: str, models: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    """A document: the routes that every server has, and those of its models.

    Args:
        settings: which routes there are.
        about: what is served.
        models: the paths that reach models.
        schemas: what the document refers to.
    """
    paths: dict[str, Any] = {
        "/ping": {"get": _ping("ping"), "post": _ping("pingByPost"), "head": _ping("pingHead")},
        **models,
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
                {JSON: {"schema": ref("ExecutionParameters")}},
            )
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SageMaker endpoint",
            "version": metadata.version("sagemaker-byoc"),
            "description": about,
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _read(name: str, text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "responses": {"200": {"description": text, "content": content}, "405": error(405)},
    }


def _ping(name: str) -> dict[str, Any]:
    def state(text: str, schema: str) -> dict[str, Any]:
        return {"description": text, "content": {JSON: {"schema": ref(schema)}}}

    return {
        "operationId": name,
        "summary": "Whether the server can answer invocations.",
        "responses": {
            "200": state("It can.", "Ready"),
            "503": {
                **state("It cannot yet, or no more.", "NotReady"),
                "headers": {"Retry-After": _header("Seconds to wait.", {"type": "integer"})},
            },
            "405": error(405),
        },
    }


def invocation(
    settings: Settings, functions: tuple[str, ...], sample: Sample | None
) -> dict[str, Any]:
    """The operation that asks a model.

    Args:
        settings: the limits.
        functions: the user's own; they decide about types.
        sample: shown as the example of a body.
    """
    own = set(functions)
    any_type: dict[str, Any] = {"*/*": {}}
    reads = any_type if own & {"input_fn", "transform_fn"} else _INPUTS
    if sample is not None and sample.text is not None:
        shown = sample.text
        value = json.loads(shown) if sample.content_type == JSON and _is_json(shown) else shown
        known = reads.get(sample.content_type, {})
        reads = {**reads, sample.content_type: {**known, "example": value}}
    errors = {**_ERRORS, **(_SESSION_ERRORS if settings.session_ttl_s else {})}
    responses: dict[str, Any] = {
        "200": {
            "description": "The prediction, in the type that `Accept` prefers.",
            "headers": {"X-Amzn-SageMaker-Custom-Attributes": _header("What the handler set.")},
            "content": any_type if own & {"output_fn", "transform_fn"} else _OUTPUTS,
        },
        **{str(status): error(status, errors[status]) for status in sorted(errors)},
    }
    if own & {"input_fn", "predict_fn", "output_fn", "transform_fn"}:
        # A handler may set any status.
        responses["default"] = {"description": "What the handler answered.", "content": any_type}
    parameters = [
        _parameter("X-Amzn-SageMaker-Custom-Attributes", "Handed to the handler."),
        _parameter(
            "X-Amzn-SageMaker-Inference-Id",
            "Names the request in the log; one that is not visible ASCII is replaced.",
        ),
    ]
    if settings.session_ttl_s:
        parameters.append(
            _parameter(
                "X-Amzn-SageMaker-Session-Id",
                "The stateful session that the request belongs to; NEW_SESSION opens one, whose "
                "id the answer has in the same header.",
            )
        )
    return {
        "operationId": "invoke",
        "summary": "Ask the model.",
        "parameters": parameters,
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


def ref(name: str) -> dict[str, str]:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def error(status: int, text: str | None = None) -> dict[str, Any]:
    """A response of an error; without a text the one that its status has everywhere."""
    response: dict[str, Any] = {
        "description": text or _ERRORS[status],
        "content": {JSON: {"schema": ref("Error")}},
    }
    if status == 503:
        response["headers"] = {"Retry-After": _header("Seconds to wait.", {"type": "integer"})}
    if status == 405:
        response["headers"] = {"Allow": _header("The methods that the path takes.")}
    return response


def strict(required: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has these members and no others."""
    return {
        "type": "object",
        "properties": required,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
SCHEMAS: dict[str, Any] = {
    "Error": {
        **strict({"error": strict({"code": TEXT, "message": TEXT, "request_id": TEXT})}),
        "description": f"Always shorter than {ERROR_BODY_LIMIT} bytes.",
    },
    "Ready": strict({"status": {"const": "ready"}}),
    "NotReady": strict({"status": {"enum": ["loading", "failed", "stopping"]}, "cause": TEXT}),
    "ExecutionParameters": strict(
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
