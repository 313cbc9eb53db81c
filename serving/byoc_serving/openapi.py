"""``GET /openapi.json``: this server's routes, for the model that it has loaded (OpenAPI 3.1)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from byoc_serving import codecs
from byoc_serving.exchange import JSON
from byoc_serving.openapi_parts import ERRORS, SCHEMAS, error, header, parameter, read, ref, served

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


def document(settings: Settings, description: Description, sample: Sample | None) -> dict[str, Any]:
    """The document.

    Args:
        settings: which routes there are, and the limits.
        description: the loaded model; its own functions decide about types.
        sample: shown as the example of a request's body.
    """
    paths: dict[str, Any] = {"/invocations": {"post": _invocations(settings, description, sample)}}
    if settings.execution_parameters:
        paths["/execution-parameters"] = {
            "get": read(
                "executionParameters",
                "How a batch transform job should send its records.",
                {JSON: {"schema": ref("ExecutionParameters")}},
            )
        }
    about = f"Model {settings.model_dir} with {description.origin} on {description.device}."
    return served(about, paths, SCHEMAS, metrics=settings.metrics)


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
            "headers": {"X-Amzn-SageMaker-Custom-Attributes": header("What the handler set.")},
            "content": any_type if own & {"output_fn", "transform_fn"} else _OUTPUTS,
        },
        **{str(status): error(status) for status in ERRORS},
    }
    if own & {"input_fn", "predict_fn", "output_fn", "transform_fn"}:
        # A handler may set any status.
        responses["default"] = {"description": "What the handler answered.", "content": any_type}
    return {
        "operationId": "invoke",
        "summary": "Ask the model.",
        "parameters": [
            parameter("X-Amzn-SageMaker-Custom-Attributes", "Handed to the handler."),
            parameter(
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
