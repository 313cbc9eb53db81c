"""``GET /openapi.json`` of a multi-model server: how models are loaded, listed, asked, unloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import JSON
from byoc_serving.openapi_parts import ERRORS, SCHEMAS, error, fields, parameter, ref, served

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

_UNKNOWN = "No model of this name is loaded."
_TEXT = {"type": "string"}
_MODEL = fields({"modelName": _TEXT, "modelUrl": _TEXT})
_LIST = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "models": {"type": "array", "items": ref("Model")},
        "nextPageToken": {**_TEXT, "description": "There is another page."},
    },
    "additionalProperties": False,
}
_LOAD = {
    "type": "object",
    "required": ["model_name", "url"],
    "properties": {
        "model_name": {**_TEXT, "minLength": 1},
        "url": {**_TEXT, "description": "Where the platform has unpacked the model."},
    },
}


def document(settings: Settings) -> dict[str, Any]:
    """The document.

    Args:
        settings: the limits, and whether there are metrics.
    """
    common = {name: SCHEMAS[name] for name in ("Error", "Ready", "NotReady")}
    schemas = {**common, "Model": _MODEL, "Models": _LIST, "Load": _LOAD}
    name = {"name": "name", "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
    paths: dict[str, Any] = {
        "/models": {"get": _listing(), "post": _loading()},
        "/models/{name}": {
            "parameters": [name],
            "get": _one("describeModel", "A loaded model."),
            "delete": _one("unloadModel", "Unload it; its memory is free when the answer comes."),
        },
        "/models/{name}/invoke": {"parameters": [name], "post": _invoking(settings)},
    }
    about = f"Models below {settings.models_dir}, loaded as they are asked for."
    return served(about, paths, schemas, metrics=settings.metrics)


def _json(text: str, schema: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": ref(schema)}}}


def _one(name: str, text: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "responses": {
            "200": _json(text, "Model"),
            "404": error(404, _UNKNOWN),
            "503": error(503),
        },
    }


def _listing() -> dict[str, Any]:
    def query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "in": "query", "description": text, "schema": schema}

    return {
        "operationId": "listModels",
        "summary": "The loaded models, a page of them.",
        "parameters": [
            query("limit", "Models on the page.", {"type": "integer", "minimum": 1}),
            query("next_page_token", "The `nextPageToken` of the page before.", _TEXT),
        ],
        "responses": {
            "200": _json("A page.", "Models"),
            "400": error(400, "A bad limit or token."),
        },
    }


def _loading() -> dict[str, Any]:
    return {
        "operationId": "loadModel",
        "summary": "Load a model.",
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Load")}}},
        "responses": {
            "200": _json("It is loaded.", "Model"),
            "400": error(400, "No name, or nothing that can be loaded where the url says."),
            "404": error(404, "Nothing is where the url says."),
            "409": error(409, "A model of this name is loaded."),
            "500": error(500, "The model cannot be loaded; the message says why."),
            "503": error(503),
            "507": error(507, "There is no memory for it; unload others."),
        },
    }


def _invoking(settings: Settings) -> dict[str, Any]:
    anything: dict[str, Any] = {"*/*": {}}
    return {
        "operationId": "invokeModel",
        "summary": "Ask a model.",
        "parameters": [
            parameter("X-Amzn-SageMaker-Custom-Attributes", "Handed to the handler."),
            parameter("X-Amzn-SageMaker-Inference-Id", "Names the request in the log."),
        ],
        "requestBody": {
            "required": True,
            "description": f"At most {settings.max_body_bytes} bytes, in a type of the model's.",
            "content": anything,
        },
        "responses": {
            "200": {"description": "The prediction.", "content": anything},
            **{str(status): error(status) for status in ERRORS if status != 405},
            "404": error(404, _UNKNOWN),
            "507": error(507, "There was no memory for the request."),
            "default": {"description": "What the handler answered.", "content": anything},
        },
    }
