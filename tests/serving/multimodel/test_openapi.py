"""``/openapi.json`` of a multi-model server: valid, true, and about its own routes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openapi_spec_validator import OpenAPIV31SpecValidator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.serving.conftest import Models

#: Loads name directories that no generator guesses; what a model takes, no document says.
EXCLUDED_CHECKS = "positive_data_acceptance"


def document_of(models: Models) -> dict[str, Any]:
    answer = models.server.request("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    OpenAPIV31SpecValidator(answer.json).validate()
    document: dict[str, Any] = answer.json
    return document


def test_the_document_lists_the_routes_of_models_and_not_that_of_a_single_one(models: Models):
    paths = document_of(models)["paths"]

    assert {path: set(paths[path]) - {"parameters"} for path in paths if "models" in path} == {
        "/models": {"get", "post"},
        "/models/{model_name}": {"get", "delete"},
        "/models/{model_name}/invoke": {"post"},
    }
    assert "/invocations" not in paths
    assert {"/ping", "/metrics", "/openapi.json", "/execution-parameters"} <= set(paths)
    assert models.server.request("POST", "/openapi.json", b"").status == 405
    assert models.server.request("HEAD", "/openapi.json").status == 200


def test_every_answer_of_a_models_life_is_listed(models: Models):
    paths = document_of(models)["paths"]
    one, invoke = paths["/models/{model_name}"], paths["/models/{model_name}/invoke"]["post"]
    url = models.write()
    answers = [
        (paths["/models"]["post"], 400, models.server.request("POST", "/models", b"{}")),
        (paths["/models"]["post"], 200, models.load("a", url)),
        (paths["/models"]["post"], 409, models.load("a", url)),
        (paths["/models"]["get"], 200, models.server.request("GET", "/models")),
        (paths["/models"]["get"], 400, models.server.request("GET", "/models?limit=0")),
        (one["get"], 200, models.get("a")),
        (invoke, 200, models.invoke("a")),
        (invoke, 404, models.invoke("b")),
        (invoke, 404, models.invoke("a", X_Amzn_SageMaker_Session_Id="unknown")),
        (one["delete"], 200, models.delete("a")),
        (one["delete"], 404, models.delete("a")),
        (one["get"], 404, models.get("a")),
    ]
    for operation, status, answer in answers:
        assert answer.status == status, (operation["operationId"], answer.body)
        kinds = operation["responses"][str(status)]["content"]
        assert {answer.headers["content-type"], "*/*"} & set(kinds), operation["operationId"]


def test_schemathesis_finds_nothing(models: Models, tmp_path: Path):
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--no-color",
        "run", f"http://127.0.0.1:{models.server.port}/openapi.json",
        "--seed", "1", "--max-examples", "10", "--generation-database", "none",
        "--exclude-checks", EXCLUDED_CHECKS, "--request-timeout", "60",
        "--report", "ndjson", "--report-ndjson-path", str(tmp_path / "events.ndjson"),
    ]  # fmt: skip
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"Tested: 10\n", ended.stdout), ended.stdout
    assert "Traceback" not in models.server.log


def test_a_path_that_is_none_is_answered_with_those_that_are(models: Models):
    answer = models.server.request("GET", "/nothing")

    assert answer.status == 404
    assert "no route /nothing" in answer.error
    assert "POST /models/<name>/invoke" in answer.error
    assert "/invocations" not in answer.error


def test_switched_off_routes_are_neither_there_nor_listed(own_models: Callable[..., Models]):
    models = own_models(BYOC_METRICS="0", BYOC_EXECUTION_PARAMETERS="0")

    assert not {"/metrics", "/execution-parameters"} & set(document_of(models)["paths"])
    for path in ("/metrics", "/execution-parameters"):
        answer = models.server.request("GET", path)
        assert answer.status == 404
        assert "/models/<name>/invoke" in answer.error
