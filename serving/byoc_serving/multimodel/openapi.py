"""The OpenAPI document of a multi-model server: the routes that load, list, ask and unload models.

Which types a model takes is its own handler's affair, and no model need be loaded yet: the document
says it of none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc_serving.exchange import JSON
from byoc_serving.multimodel.location import MAX_NAME_LENGTH
from byoc_serving.multimodel.paging import DEFAULT_LIMIT
from byoc_serving.openapi import SCHEMAS, TEXT, error, invocation, ref, strict, whole

if TYPE_CHECKING:
    from byoc_serving.settings import Settings

#: What decides about all types of a body and of an answer.
_ANY = ("transform_fn",)
_UNKNOWN = "No model of that name is loaded."
_NO_MEMORY = "There is too little memory, or no room on the disk; unload other models first."
_NAME = {
    "name": "model_name",
    "in": "path",
    "required": True,
    "description": "As it was loaded; a slash in it is sent as %2F.",
    "schema": {"type": "string", "minLength": 1},
}
_SCHEMAS: dict[str, Any] = {
    "Model": strict({"modelName": TEXT, "modelUrl": TEXT}),
    "Models": {
        "type": "object",
        "properties": {
            "models": {"type": "array", "items": ref("Model")},
            "nextPageToken": {**TEXT, "description": "Absent on the last page."},
        },
        "required": ["models"],
        "additionalProperties": False,
    },
    "Load": {
        "type": "object",
        "properties": {
            "model_name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH},
            "url": {
                "type": "string",
                "minLength": 1,
                "description": "The directory of the unpacked archive: /opt/ml/models/<…>/model.",
            },
        },
        "required": ["model_name", "url"],
    },
}


def document(settings: Settings) -> dict[str, Any]:
    """The document.

    Args:
        settings: which routes there are, and the limits.
    """
    paths = {
        "/models": {"get": _list(), "post": _load()},
        "/models/{model_name}": {
            "parameters": [_NAME],
            "get": _one("describeModel", "A loaded model.", {}),
            "delete": _one(
                "unloadModel",
                "Unload a model; its memory is free when the answer comes.",
                {"503": error(503)},
            ),
        },
        "/models/{model_name}/invoke": {"parameters": [_NAME], "post": _invoke(settings)},
    }
    about = f"Several models, loaded and unloaded from {settings.models_dir} as they are asked for."
    return whole(settings, about, paths, {**SCHEMAS, **_SCHEMAS})


def _list() -> dict[str, Any]:
    return {
        "operationId": "listModels",
        "summary": "The loaded models, page by page.",
        "parameters": [
            {
                "name": "limit",
                "in": "query",
                "description": "Models on a page.",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 999_999_999,
                    "default": DEFAULT_LIMIT,
                },
            },
            {
                "name": "next_page_token",
                "in": "query",
                "description": "`nextPageToken` of the page before.",
                "schema": TEXT,
            },
        ],
        "responses": {
            "200": _content("A page.", "Models"),
            "400": error(400, "A limit or a token that is none."),
            "405": error(405),
            "503": error(503),
        },
    }


def _load() -> dict[str, Any]:
    return {
        "operationId": "loadModel",
        "summary": "Load a model; it can be asked when the answer comes.",
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Load")}}},
        "responses": {
            "200": _content("It is loaded.", "Model"),
            "400": error(400, "The body is no such object, or the url no directory of a model."),
            "405": error(405),
            "409": error(409, "A model of that name is loaded, or being loaded."),
            "500": error(500, "The model cannot be loaded."),
            "503": error(503),
            "507": error(507, _NO_MEMORY),
        },
    }


def _one(name: str, text: str, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": text,
        "responses": {
            "200": _content("The model.", "Model"),
            "404": error(404, _UNKNOWN),
            "405": error(405),
            **more,
        },
    }


def _invoke(settings: Settings) -> dict[str, Any]:
    operation = invocation(settings, _ANY, None)
    sessions = " There is no session of that id, or no longer." if settings.session_ttl_s else ""
    operation["responses"]["404"] = error(404, _UNKNOWN + sessions)
    operation["responses"]["507"] = error(507, _NO_MEMORY)
    return operation


def _content(text: str, schema: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": ref(schema)}}}
