"""Stateful sessions of several models: each model has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Models

HANDLER = """
    def model_fn(model_dir): return 0
    def input_fn(body, content_type): return body
    def predict_fn(data, model, context):
        if context.session is None:
            return None
        context.session["count"] = context.session.get("count", 0) + 1
        if "fail" in data:
            raise ValueError("told to fail")
        return context.session["count"]
"""
ID = "x-amzn-sagemaker-session-id"


def ask(models: Models, name: str, session: str, body: str = "[]"):
    return models.invoke(name, body, X_Amzn_SageMaker_Session_Id=session)


@pytest.mark.contract(91)
def test_session_belongs_to_the_model_that_it_was_opened_with(models: Models):
    urls = {name: models.write(HANDLER) for name in ("one", "two")}
    for name, url in urls.items():
        assert models.load(name, url).status == 200
    assert models.invoke("one").json is None
    first = ask(models, "one", "NEW_SESSION")
    assert (first.status, first.json) == (200, 1)
    assert first.headers["x-amzn-sagemaker-new-session-id"] == first.headers[ID]
    identifier, _, expires = first.headers[ID].partition("; Expires=")
    assert expires
    assert ask(models, "one", identifier).json == 2
    assert ask(models, "one", identifier, '"fail"').status == 422
    # What the failed request has changed is not kept.
    assert ask(models, "one", identifier).json == 3
    stranger = ask(models, "two", identifier)
    assert (stranger.status, stranger.json["error"]["code"]) == (404, "unknown_session")
    assert ask(models, "two", identifier, '{"requestType": "CLOSE"}').status == 404
    # The platform unloads models as it likes: no client knows of that.
    assert models.delete("one").status == 200
    assert models.load("one", urls["one"]).status == 200
    assert ask(models, "one", identifier).json == 4
    closed = ask(models, "one", identifier, '{"requestType": "CLOSE"}')
    assert (closed.status, closed.json) == (200, {"closed": identifier})
    assert closed.headers["x-amzn-sagemaker-closed-session-id"] == identifier
    assert ask(models, "one", identifier).status == 404
    assert ask(models, "one", "../../etc/passwd").status == 400


@pytest.mark.contract(91)
def test_session_that_is_opened_by_the_body_alone_needs_no_model_to_answer(models: Models):
    assert models.load("one", models.write(HANDLER)).status == 200
    answer = models.invoke("one", '{"requestType": "NEW_SESSION"}')
    assert answer.status == 200
    assert ask(models, "one", answer.json["sessionId"]).json == 1
    assert models.invoke("missing", '{"requestType": "NEW_SESSION"}').status == 404
