"""``/openapi.json``: valid by an independent validator, true by schemathesis.

``BYOC_FUZZ_EXAMPLES=2000 make test TESTS=tests/serving/test_openapi.py`` looks longer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from byoc_serving import openapi
from byoc_serving.description import Description
from byoc_serving.sample import Sample
from byoc_serving.settings import Settings

#: Whether a model takes a shape, no schema of a general server can say: it answers 422.
EXCLUDED_CHECKS = "positive_data_acceptance"


def made(
    sample: Sample | None = None, settings: Settings | None = None, *functions: str
) -> dict[str, Any]:
    description = Description("code/inference.py", functions, "cpu")
    document = openapi.document(settings or Settings(), description, sample)
    OpenAPIV31SpecValidator(document).validate()
    return document


def content(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    invoke = document["paths"]["/invocations"]["post"]
    return invoke["requestBody"]["content"], invoke["responses"]["200"]["content"]


def test_the_default_functions_types_are_listed():
    reads, writes = content(made())

    assert {"application/json", "text/csv", "application/x-npy", "image/png"} <= set(reads)
    assert {"application/json", "text/csv", "application/x-npy"} <= set(writes)
    assert "default" not in made()["paths"]["/invocations"]["post"]["responses"]


def test_a_handlers_own_functions_decide_about_types():
    reads, writes = content(made(None, None, "model_fn", "input_fn"))
    assert set(reads) == {"*/*"}
    assert "application/json" in writes

    reads, writes = content(made(None, None, "transform_fn"))
    assert set(reads) == set(writes) == {"*/*"}
    responses = made(None, None, "transform_fn")["paths"]["/invocations"]["post"]["responses"]
    assert "default" in responses


@pytest.mark.parametrize(
    ("name", "body", "kind", "example"),
    [
        ("sample.json", b"[[1, 2]]", "application/json", [[1, 2]]),
        ("sample.json", b"no json", "application/json", "no json"),
        ("sample.csv", b"1,2\n", "text/csv", "1,2\n"),
        ("sample.npy", b"\x93NUMPY\xff", "application/x-npy", None),
        ("sample.json", b" " * 65537, "application/json", None),
    ],
)
def test_the_models_sample_is_the_example(tmp_path, name, body, kind, example):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / name).write_bytes(body)

    reads, _ = content(made(Sample.find(tmp_path)))

    assert reads[kind].get("example") == example
    assert set(reads) == set(content(made())[0])


def test_routes_that_are_switched_off_are_not_listed():
    assert "/metrics" in made()["paths"]
    assert "/metrics" not in made(None, Settings(metrics=False))["paths"]
    assert "/execution-parameters" in made()["paths"]
    off = Settings(execution_parameters=False)
    assert "/execution-parameters" not in made(None, off)["paths"]


def test_every_listed_route_exists_and_answers_as_listed(shared_server):
    answer = shared_server.request("GET", "/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json
    OpenAPIV31SpecValidator(document).validate()
    limit = document["paths"]["/invocations"]["post"]["requestBody"]["description"]
    assert str(101 * 1024 * 1024) in limit
    for path, operations in document["paths"].items():
        for method in operations:
            body = b"[[1, 2, 3, 4]]" if path == "/invocations" else None
            kind = {"Content-Type": "application/json"} if body else {}
            answered = shared_server.request(method.upper(), path, body, kind)
            assert answered.status == 200
            if method != "head":
                listed = operations[method]["responses"]["200"]["content"]
                assert answered.headers["content-type"].split(";")[0] in listed
    assert shared_server.request("POST", "/openapi.json", b"").status == 405


def test_head_tells_the_length_that_get_has(shared_server):
    for path in ("/openapi.json", "/execution-parameters", "/nothing"):
        answer = shared_server.request("GET", path)
        head = shared_server.request("HEAD", path)
        assert (head.status, head.body) == (answer.status, b"")
        assert int(head.headers["content-length"]) == len(answer.body) > 0


@pytest.mark.contract(64)
def test_schemathesis_finds_nothing(shared_server, tmp_path):
    """Data that the document allows and data that it forbids, each answered as it says."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--no-color",
        "run", f"http://127.0.0.1:{shared_server.port}/openapi.json",
        "--seed", "1",
        "--max-examples", os.environ.get("BYOC_FUZZ_EXAMPLES", "10"),
        "--generation-database", "none",
        "--exclude-checks", EXCLUDED_CHECKS,
        "--request-timeout", "60",
        "--report", "ndjson", "--report-ndjson-path", str(tmp_path / "events.ndjson"),
    ]  # fmt: skip
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"Tested: 6\n", ended.stdout), ended.stdout
    assert shared_server.invoke(b"[[1, 2, 3, 4]]").status == 200
    assert "Traceback" not in shared_server.log


def test_the_document_is_that_of_the_loaded_handler(model_root, start):
    handler = """
        def model_fn(model_dir):
            return 1

        def transform_fn(model, body, content_type, accept):
            return body
    """
    root = model_root(handler, sample__json=b"[1]")
    server = start(root).wait_ready()

    document = server.request("GET", "/openapi.json").json

    reads, writes = content(document)
    assert reads == {"*/*": {}, "application/json": {"example": [1]}}
    assert set(writes) == {"*/*"}
    assert "code/inference.py" in document["info"]["description"]
