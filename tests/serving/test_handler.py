from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from byoc_serving.context import Context
from byoc_serving.errors import HandlerError
from byoc_serving.exchange import Invocation
from byoc_serving.handler import Handler
from byoc_serving.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def load(tmp_path, monkeypatch) -> Callable[[str], Handler]:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(text: str) -> Handler:
        monkeypatch.delitem(sys.modules, "a_handler", raising=False)
        path = tmp_path / "a_handler.py"
        path.write_text(text)
        return Handler.load(Source(path, None, "a_handler.py"))

    return make


@pytest.mark.parametrize(
    ("signature", "context_by"),
    [
        ("model_dir", ""),
        ("model_dir, context", "context"),
        ("model_dir, ctx", "ctx"),
        ("model_dir, context=None", "context"),
        ("model_dir, *, context", "context"),
        ("model_dir, whatever", "position"),
        ("model_dir, device='cpu'", ""),
        ("model_dir, device='cpu', context=None", "context"),
        ("*args", ""),
        ("model_dir, **kwargs", ""),
        ("context", ""),
        ("model_dir, context, /", "position"),
    ],
)
def test_context_goes_where_the_signature_wants_it(load, signature, context_by):
    function = load(f"def model_fn({signature}): return 'called'\n").model_fn
    assert function is not None
    assert function.context_by == context_by
    assert function(Context({}), "dir") == "called"


@pytest.mark.parametrize(
    "signature", ["", "model_dir, a, b", "model_dir, *, a", "model_dir, context, a"]
)
def test_signature_that_cannot_be_called_is_refused(load, signature):
    with pytest.raises(HandlerError, match="model_fn"):
        load(f"def model_fn({signature}): ...\n")


def test_function_that_is_no_function_is_refused(load):
    with pytest.raises(HandlerError, match="model_fn is int"):
        load("model_fn = 3\n")


def test_error_on_import_names_the_users_line(load):
    with pytest.raises(HandlerError, match=r"ZeroDivisionError at a_handler\.py:2"):
        load("x = 1\ny = 1 / 0\ndef model_fn(d): ...\n")


def test_context_offers_what_mms_handlers_use():
    invocation = Invocation.from_headers([(b"x-colour", b"blue"), (b"accept", b"*/*")])
    context = Context({"model_dir": "/m", "gpu_id": None, "device": "cpu"}, invocation)
    assert context.system_properties.get("model_dir") == "/m"
    assert context.get_request_header(0, "X-Colour") == "blue"
    assert context.request_processor[0].get_request_header(0, "missing") is None
    assert context.get_all_request_header(0)["x-colour"] == "blue"
    assert context.request_ids[0] == context.request_id != ""
    context.set_response_content_type(0, "text/plain")
    context.set_response_status(201, "Created")
    assert (context.response_content_type, context.response_status) == ("text/plain", 201)


@pytest.mark.parametrize("value", ["x" * 1025, "line\nbreak", "ä"])
def test_custom_attributes_that_http_cannot_carry_are_refused(value):
    with pytest.raises(ValueError, match=r"1,024"):
        Context({}).custom_attributes = value


@pytest.mark.parametrize(
    ("name", "value"), [("Content-Length", "1"), ("a b", "1"), ("a", "1\r\nb: 2")]
)
def test_headers_that_would_break_the_response_are_refused(name, value):
    with pytest.raises(ValueError, match="response header"):
        Context({}).set_response_header(0, name, value)
