"""Stateful sessions over HTTP, on both fronts and over several workers."""

from __future__ import annotations

import calendar
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.conftest import Answer, Server

HANDLER = """
import json, os, time
import torch

def model_fn(model_dir):
    return 0

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(ask, model, context):
    session = context.session
    if session is None:
        return {"session": None}
    if ask.get("slow"):
        held = session.get("count", 0)
        time.sleep(0.05)
        session["count"] = held + 1
    else:
        session["count"] = session.get("count", 0) + 1
    session["sum"] = session.get("sum", torch.zeros(2)) + torch.ones(2)
    if ask.get("fail"):
        raise ValueError("told to fail")
    if ask.get("unpicklable"):
        session["function"] = lambda: 0
    answer = {"count": session["count"], "sum": session["sum"].tolist(), "pid": os.getpid()}
    if ask.get("stream"):
        return iter([answer])
    return {**answer, "id": context.session_id}
"""

ID = "x-amzn-sagemaker-session-id"
NEW_ID = "x-amzn-sagemaker-new-session-id"
CLOSED_ID = "x-amzn-sagemaker-closed-session-id"


@pytest.fixture(scope="module")
def server(
    front: str,
    tmp_path_factory: pytest.TempPathFactory,
    serve_command: list[str],
    server_class: Any,
) -> Iterator[Server]:
    root = tmp_path_factory.mktemp(f"sessions-{front}")
    code = root / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(HANDLER)
    environ = {
        "BYOC_FRONT": front,
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "BYOC_SESSION_TTL_SECONDS": "600",
        "BYOC_MAX_SESSIONS": "24",
        "TMPDIR": str(root),
    }
    server = server_class(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


def ask(server: Server, session: str | None, **body: Any) -> Answer:
    headers = {} if session is None else {"X-Amzn-SageMaker-Session-Id": session}
    return server.invoke(json.dumps(body), headers=headers)


def opened(answer: Answer) -> str:
    """The id of the session that an answer tells of."""
    assert answer.status == 200, answer.body
    assert answer.headers[ID] == answer.headers[NEW_ID]
    identifier, _, expires = answer.headers[ID].partition("; Expires=")
    left_s = calendar.timegm(time.strptime(expires, "%Y-%m-%dT%H:%M:%SZ")) - time.time()
    assert 0 < left_s <= 600
    assert 0 < len(identifier) <= 256
    return identifier


@pytest.mark.contract(91)
@pytest.mark.parametrize("by", ["header", "body", "both"])
def test_a_session_is_opened_used_by_every_worker_and_closed(server: Server, by):
    control = {"requestType": "NEW_SESSION"} if by != "header" else {}
    answer = ask(server, "NEW_SESSION" if by != "body" else None, **control)
    identifier = opened(answer)
    count = 0
    if by == "header":
        # The request that opens a session may be an ordinary one.
        assert (answer.json["id"], answer.json["count"]) == (identifier, 1)
        count = 1
    else:
        assert answer.json["sessionId"] == identifier
    pids: set[int] = set()
    while len(pids) < 2:
        count += 1
        assert count < 500, "one worker gets everything"
        later = ask(server, identifier)
        assert (later.json["count"], later.json["sum"]) == (count, [float(count)] * 2)
        assert later.headers.get(ID) is None
        pids.add(later.json["pid"])
    closed = ask(server, identifier, requestType="CLOSE")
    assert (closed.status, closed.headers[CLOSED_ID]) == (200, identifier)
    gone = ask(server, identifier)
    assert (gone.status, gone.json["error"]["code"]) == (404, "unknown_session")


def test_a_request_without_a_session_has_none(server: Server):
    assert ask(server, None).json == {"session": None}
    # What looks like a message about sessions but is none goes to the handler.
    assert ask(server, None, requestType="OTHER").json == {"session": None}


@pytest.mark.contract(91)
@pytest.mark.parametrize(
    ("identifier", "status", "code"),
    [
        ("0123abc", 404, "unknown_session"),
        ("a" * 256, 404, "unknown_session"),
        ("a" * 257, 400, "bad_session"),
        ("../../etc/passwd", 400, "bad_session"),
        ("new_session", 400, "bad_session"),
    ],
)
def test_a_session_that_is_none_is_refused(server: Server, identifier, status, code):
    answer = ask(server, identifier)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


def test_closing_needs_the_id(server: Server):
    answer = ask(server, None, requestType="CLOSE")
    assert (answer.status, answer.json["error"]["code"]) == (400, "bad_session")


def test_requests_of_one_session_run_one_after_the_other(server: Server):
    identifier = opened(ask(server, "NEW_SESSION", requestType="NEW_SESSION"))
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(server, identifier, slow=True)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.json["count"] for answer in answers) == list(range(1, 9))


def test_a_request_that_fails_leaves_the_session_as_it_was(server: Server):
    identifier = opened(ask(server, "NEW_SESSION", requestType="NEW_SESSION"))
    assert ask(server, identifier).json["count"] == 1
    assert ask(server, identifier, fail=True).status == 422
    answer = ask(server, identifier, unpicklable=True)
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error")
    assert ask(server, identifier).json["count"] == 2
    # Opening by a request that fails opens nothing.
    assert ID not in ask(server, "NEW_SESSION", fail=True).headers


def test_a_stream_belongs_to_its_session(server: Server):
    identifier = opened(ask(server, "NEW_SESSION", stream=True))
    assert ask(server, identifier, stream=True).json["count"] == 2
    assert ask(server, identifier).json["count"] == 3


def test_more_sessions_than_there_may_be_are_refused_until_one_is_closed(server: Server):
    identifiers = []
    while (answer := ask(server, "NEW_SESSION", requestType="NEW_SESSION")).status == 200:
        identifiers.append(opened(answer))
        assert len(identifiers) <= 24
    assert (answer.status, answer.json["error"]["code"]) == (503, "full")
    assert "BYOC_MAX_SESSIONS" in answer.error
    for identifier in identifiers:
        assert ask(server, identifier, requestType="CLOSE").status == 200
    assert ask(server, "NEW_SESSION", requestType="NEW_SESSION").status == 200


def test_files_of_sessions_are_the_servers_alone(server: Server):
    ask(server, "NEW_SESSION")
    folders = list(server.root.glob("byoc-serve-*/sessions"))
    assert [oct(folder.stat().st_mode & 0o777) for folder in folders] == ["0o700"]


@pytest.mark.contract(91)
def test_an_expired_session_is_unknown_and_its_place_free(start, model_root, front):
    environ = {"BYOC_SESSION_TTL_SECONDS": "1", "BYOC_MAX_SESSIONS": "1"}
    server = start(model_root(HANDLER), BYOC_FRONT=front, **environ).wait_ready()
    identifier = opened(ask(server, "NEW_SESSION", requestType="NEW_SESSION"))
    server.wait_until(lambda: ask(server, identifier).status == 404)
    assert ask(server, identifier).json["error"]["code"] == "unknown_session"
    opened(ask(server, "NEW_SESSION"))
    assert server.terminate() == 0


def test_without_a_time_to_live_sessions_are_the_handlers_business(start, model_root, front):
    server = start(model_root(HANDLER), BYOC_FRONT=front, BYOC_SESSION_TTL_SECONDS="0")
    answer = ask(server.wait_ready(), "NEW_SESSION", requestType="NEW_SESSION")
    assert (answer.json, ID in answer.headers) == ({"session": None}, False)


@pytest.mark.contract(91)
def test_a_session_in_which_nothing_is_yet_reaches_the_process_of_the_model(model_root, start):
    root = model_root(HANDLER)
    server = start(root, BYOC_TOPOLOGY="isolated").wait_ready()
    kind = {"Content-Type": "application/json"}

    opened = server.request("POST", "/invocations", b"{}", {**kind, ID: "NEW_SESSION"})
    assert opened.status == 200
    assert opened.json["count"] == 1
    named = {**kind, ID: opened.json["id"]}
    assert server.request("POST", "/invocations", b"{}", named).json["count"] == 2
