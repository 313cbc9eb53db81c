"""Codes, names and refusals of the multi-model container API (contract, section 10)."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models


@pytest.mark.contract(81)
def test_server_without_a_model_is_healthy_and_lists_none(models: Models):
    ping = models.server.ping()
    assert ping is not None
    assert ping.status == 200
    answer = models.server.request("GET", "/models")
    assert (answer.status, answer.json) == (200, {"models": []})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.contract(82)
def test_load_list_get_invoke_and_unload_have_the_contracts_codes(models: Models):
    url = models.write()
    item = {"modelName": "one", "modelUrl": url}
    assert models.invoke("one").status == 404
    assert models.get("one").status == 404
    assert models.delete("one").status == 404
    assert models.load("one", url).status == 200
    again = models.load("one", url)
    assert (again.status, again.json["error"]["code"]) == (409, "model_already_loaded")
    assert (models.get("one").status, models.get("one").json) == (200, item)
    assert models.server.request("GET", "/models").json == {"models": [item]}
    assert (models.invoke("one").status, models.invoke("one").json) == (200, [[1.0]])
    assert models.delete("one").status == 200
    assert models.delete("one").status == 404
    assert models.invoke("one").status == 404
    assert models.load("one", url).status == 200


@pytest.mark.contract(64, 67)
def test_invocations_of_a_model_follow_the_rules_of_a_single_one(models: Models):
    handler = """
        import torch
        def model_fn(model_dir): return torch.nn.Identity()
        def predict_fn(data, model): return model(data)
        def output_fn(prediction, accept, context):
            context.custom_attributes = context.custom_attributes + " back"
            target = context.get_request_header(0, "x-amzn-sagemaker-target-model")
            context.set_response_header(0, "X-Seen", target)
            return str(prediction.numel()), "text/plain"
    """
    assert models.load("strict").status == 200
    assert models.load("attributes", models.write(handler)).status == 200
    assert models.invoke("strict", "[[1,").status == 400
    assert models.invoke("strict", b"1", Content_Type="video/mp4").status == 415
    assert models.invoke("strict", "[[1]]", Accept="video/mp4").status == 406
    assert models.invoke("strict", "1,2\n3,4", Content_Type="text/csv").json == [[1, 2], [3, 4]]
    answer = models.invoke(
        "attributes",
        json.dumps([[0] * 400_000]),
        X_Amzn_SageMaker_Custom_Attributes="there and",
        X_Amzn_SageMaker_Target_Model="attributes.tar.gz",
    )
    assert (answer.status, answer.body) == (200, b"400000")
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "there and back"
    assert answer.headers["x-seen"] == "attributes.tar.gz"
    assert answer.headers["content-type"] == "text/plain"
    body = json.dumps([[0.5] * 3_000_000])
    assert models.invoke("strict", body).json == json.loads(body)


def test_plain_invocations_and_adapters_are_refused_with_the_way_to_go(models: Models):
    refused = models.server.invoke("[[1]]")
    assert refused.status == 404
    assert "/models/<name>/invoke" in refused.error
    assert models.server.request("POST", "/adapters", '{"name": "a"}').status == 404
    for method, path, allowed in (
        ("PUT", "/models", "GET, POST"),
        ("POST", "/models/a", "GET, DELETE"),
        ("GET", "/models/a/invoke", "POST"),
    ):
        answer = models.server.request(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


NAMES = [
    "a/b", "/", "..", "../../ping", "50%", "a%2Fb", "ü-€-😀", " spaces ", "x/invoke", "invoke",
    "a?b#c&d=e", "a+b", "a//b", "0" * 1024, "new\nline", "tab\tNUL\0", '"quoted"',
]  # fmt: skip


@pytest.mark.contract(82, 84)
def test_names_are_opaque(models: Models):
    url = models.write()
    with ThreadPoolExecutor(4) as pool:
        assert {a.status for a in pool.map(lambda name: models.load(name, url), NAMES)} == {200}
    for name in NAMES:
        assert models.get(name).json == {"modelName": name, "modelUrl": url}, name
        assert models.invoke(name).json == [[1.0]], name
    assert models.names(limit=3) == sorted(NAMES)
    # A slash may also come as it is.
    assert models.server.request("GET", "/models/a/b").json["modelName"] == "a/b"
    answer = models.server.request(
        "POST", "/models/a/b/invoke", "[[2]]", {"Content-Type": "application/json"}
    )
    assert answer.json == [[2.0]]
    for name in NAMES:
        assert models.delete(name).status == 200, name
    assert models.names() == []


@pytest.mark.contract(64)
def test_bad_load_requests_are_refused_with_one_clear_line(models: Models):
    root = models.server.root
    good = models.write()
    (root / "models" / "file").write_bytes(b"")
    (root / "secret").mkdir(exist_ok=True)
    links = root / "models" / f"links-{os.urandom(4).hex()}"
    links.mkdir()
    (links / "out").symlink_to(root / "secret")
    (links / "loop").symlink_to(links / "loop")
    bodies = [
        b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b"{}", b'{"model_name": "a"}',
        json.dumps({"url": good}).encode(), b'{"model_name": 1, "url": "/opt/ml/models/a"}',
        json.dumps({"model_name": "", "url": good}).encode(),
        json.dumps({"model_name": "a" * 1025, "url": good}).encode(),
        b" " * 70_000,
    ]  # fmt: skip
    urls = [
        "", "relative", "/etc", "/opt/ml/model", "/opt/ml/models", "/opt/ml/models/",
        f"{good}/../../../secret", "/opt/ml/models/../secret", "/opt/ml/models/../../../etc",
        f"/opt/ml/models/{links.name}/out", f"/opt/ml/models/{links.name}/loop",
        "/opt/ml/models/file", "/opt/ml/models/missing", "/opt/ml/models/a\0b",
        f"/opt/ml/models/{'x' * 5000}", str(root / "secret"), "s3://bucket/key",
    ]  # fmt: skip
    bodies += [json.dumps({"model_name": "a", "url": url}).encode() for url in urls]
    for body in bodies:
        answer = models.server.request("POST", "/models", body)
        assert answer.status == 400, (body, answer.body)
        assert len(answer.body) < 2048
        assert "Traceback" not in answer.error
    assert models.names() == []
    assert models.load("a", str(root / "models" / Path(good).relative_to("/opt/ml/models"))).status
    assert models.load("b", good).status == 200
    assert "Traceback" not in models.server.log
