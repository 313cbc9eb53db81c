"""Streaming answers over real connections, on both fronts."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serving.conftest import Server

#: One handler for every test: the request says what it does. ``gates`` are files that a test
#: makes to let a stream go on, so that no test depends on time.
HANDLER = """
import asyncio, json, pathlib, time
GATES = pathlib.Path(__file__).parents[2]

def passed(gate):
    return (GATES / gate).exists()

def note(text):
    with (GATES / "notes").open("a") as file:
        file.write(text + "\\n")

def model_fn(model_dir):
    return 0

def input_fn(body, content_type):
    return json.loads(body)

def items(ask, context):
    if "type" in ask:
        context.set_response_content_type(0, ask["type"])
    if "status" in ask:
        context.set_response_status(ask["status"])
    context.custom_attributes = "streamed"
    try:
        for item in ask.get("items", []):
            yield bytes.fromhex(item["hex"]) if isinstance(item, dict) and "hex" in item else item
        if "gate" in ask:
            while not passed(ask["gate"]):
                time.sleep(0.01)
            yield "after"
        for number in range(ask.get("flood", 0)):
            yield b"x" * 65536
            if number % 64 == 0:
                note(f"{ask['name']} flood {number}")
        while ask.get("endless"):
            yield "again"
            time.sleep(0.01)
        if "fail" in ask:
            raise ValueError(ask["fail"])
    finally:
        note(f"{ask.get('name')} closed")

async def async_items(ask, context):
    try:
        for item in ask["items"]:
            yield item
        while "gate" in ask and not passed(ask["gate"]):
            await asyncio.sleep(0.01)
        if ask.get("forever"):
            await asyncio.sleep(3600)
    finally:
        note(f"{ask.get('name')} closed")

def predict_fn(ask, model, context):
    if ask.get("plain"):
        return {"plain": True}
    if ask.get("async"):
        return async_items(ask, context)
    return items(ask, context)
"""


@pytest.fixture(scope="module")
def front(variant: str) -> str:
    return variant.partition("-")[0]


@pytest.fixture(scope="module")
def topology(variant: str) -> str:
    return variant.partition("-")[2] or "inline"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, variant: str) -> Path:
    root = tmp_path_factory.mktemp(f"streaming-{variant}")
    code = root / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(HANDLER)
    return root


@pytest.fixture(scope="module")
def server(
    root: Path, front: str, topology: str, serve_command: list[str], server_class: Any
) -> Iterator[Server]:
    environ = {
        "BYOC_FRONT": front,
        "BYOC_TOPOLOGY": topology,
        "BYOC_MAX_STREAMS": "3",
        "BYOC_STREAM_TIMEOUT_SECONDS": "60",
    }
    server = server_class(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


@contextlib.contextmanager
def streaming(
    server: Server, ask: Any, accept: str = "", *, patient: bool = True
) -> Iterator[http.client.HTTPResponse]:
    """The response with its head read; closing the context closes the connection.

    Places that earlier tests' clients have left become free a moment later: patience waits.
    """
    headers = {"Content-Type": "application/json"}
    if accept:
        headers["Accept"] = accept
    with contextlib.ExitStack() as stack:
        got: list[http.client.HTTPResponse] = []

        def asked() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            stack.enter_context(contextlib.closing(connection))
            connection.request("POST", "/invocations", json.dumps(ask), headers)
            got[:] = [connection.getresponse()]
            return got[0].status != 503 or not patient

        server.wait_until(asked)
        yield got[0]


def notes(root: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (root / "notes").read_text().splitlines()
    return []


def noted(root: Path, note: str) -> bool:
    return note in notes(root)


@pytest.mark.parametrize(
    ("items", "accept", "content_type", "body"),
    [
        (["a", "b"], "", "text/plain; charset=utf-8", b"ab"),
        ([{"hex": "00ff"}, {"hex": "01"}], "", "application/octet-stream", b"\x00\xff\x01"),
        ([{"a": 1}, [2], 3], "", "application/jsonlines", b'{"a":1}\n[2]\n3\n'),
        ([{"a": 1}], "application/json", "application/jsonlines", b'{"a":1}\n'),
        ([{"a": 1}, "b"], "application/x-ndjson", "application/jsonlines", b'{"a":1}\n"b"\n'),
        (['{"own":1}\n'], "application/jsonlines", "application/jsonlines", b'{"own":1}\n'),
        (
            [{"a": 1}, "two\nlines", "event: own\ndata: x\n\n", {"hex": "3a0a0a"}],
            "text/event-stream",
            "text/event-stream",
            b'data: {"a":1}\n\ndata: two\ndata: lines\n\nevent: own\ndata: x\n\n:\n\n',
        ),
        (["{}"], "application/json", "application/json", b"{}"),
        ([{"hex": "52494646"}], "audio/wav", "audio/wav", b"RIFF"),
        ([], "", "application/octet-stream", b""),
        (["", "a", ""], "*/*", "text/plain; charset=utf-8", b"a"),
    ],
)
def test_items_are_framed_as_the_type_asks(server: Server, items, accept, content_type, body):
    for ask in ({"items": items}, {"items": items, "async": True}):
        if "async" in ask and any(isinstance(item, dict) and "hex" in item for item in items):
            continue
        with streaming(server, ask, accept) as response:
            assert response.status == 200
            assert response.getheader("Transfer-Encoding") == "chunked"
            assert response.getheader("Content-Type") == content_type
            assert response.read() == body


def test_the_handler_sets_status_type_and_headers_before_its_first_item(server: Server):
    ask = {"items": [{"a": 1}], "type": "text/event-stream", "status": 201}
    with streaming(server, ask) as response:
        assert (response.status, response.read()) == (201, b'data: {"a":1}\n\n')
        assert response.getheader("X-Amzn-SageMaker-Custom-Attributes") == "streamed"
        assert response.getheader("Content-Type") == "text/event-stream"


@pytest.mark.contract(88)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_first_chunk_is_there_before_the_last_is_made(server: Server, root: Path, kind):
    ask = {"items": ["first"], "gate": f"gate-{kind}", "async": kind == "async"}
    with streaming(server, ask) as response:
        assert response.read(5) == b"first"
        # The model's thread is free meanwhile, and so is the ping.
        assert server.invoke('{"plain": true}').json == {"plain": True}
        assert server.ping() is not None
        (root / f"gate-{kind}").touch()
        assert response.read() == (b"after" if kind == "sync" else b"")


@pytest.mark.contract(89)
@pytest.mark.parametrize("kind", ["yielding", "waiting"])
def test_a_client_that_leaves_stops_the_generator_and_frees_its_place(
    server: Server, root: Path, kind
):
    # More often than there are places.
    for turn in range(5):
        name = f"left-{kind}-{turn}"
        ask: dict[str, Any] = {"items": ["first"], "name": name}
        ask |= {"endless": True} if kind == "yielding" else {"async": True, "forever": True}
        with streaming(server, ask) as response:
            assert (response.status, response.read(5)) == (200, b"first")
        server.wait_until(partial(noted, root, f"{name} closed"))


def test_more_streams_than_there_may_be_are_refused_and_others_served(server: Server):
    ask = {"items": ["a"], "async": True, "forever": True}
    with contextlib.ExitStack() as stack:

        def filled() -> bool:
            response = stack.enter_context(streaming(server, ask, patient=False))
            if response.status == 200:
                return False
            error = json.loads(response.read())["error"]
            assert (response.status, error["code"]) == (503, "full")
            assert "BYOC_MAX_STREAMS" in error["message"]
            assert response.getheader("Retry-After") == "1"
            return True

        server.wait_until(filled)
        assert server.invoke('{"plain": true}').status == 200


@pytest.mark.parametrize("accept", ["", "text/event-stream", "application/jsonlines"])
def test_an_error_before_the_first_item_is_an_ordinary_one(server: Server, accept):
    with streaming(server, {"fail": "no such prompt", "status": 200}, accept) as response:
        error = json.loads(response.read())["error"]
        assert (response.status, error["code"]) == (422, "refused_by_model")
        assert "no such prompt" in error["message"]
        assert response.getheader("Content-Length") is not None


@pytest.mark.parametrize(
    ("accept", "head", "tail"),
    [
        ("text/event-stream", b"data: a\n\nevent: error\ndata: ", b"\n\n"),
        ("application/jsonlines", b'"a"\n', b"\n"),
        ("text/plain", b"a", None),
    ],
)
def test_an_error_later_is_the_last_record_of_a_body_that_breaks_off(
    server: Server, accept, head, tail
):
    with streaming(server, {"items": ["a"], "fail": "it broke"}, accept) as response:
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
    body = broken.value.partial
    assert body.startswith(head)
    if tail is None:
        assert body == head
    else:
        error = json.loads(body[len(head) :])["error"]
        assert (error["code"], body[-len(tail) :]) == ("refused_by_model", tail)
        assert "it broke" in error["message"]


def test_a_slow_client_holds_up_its_own_generator_only(server: Server, root: Path):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({"flood": 4096, "name": "slow"}).encode()
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        server.wait_until(lambda: "slow flood 0" in notes(root))
        with streaming(server, {"flood": 512, "name": "quick"}) as response:
            assert len(response.read()) == 512 * 65536
        # 256 MiB would fit nowhere; the generator waits near its beginning.
        assert "slow flood 1024" not in notes(root)
        assert "slow closed" not in notes(root)
    server.wait_until(lambda: "slow closed" in notes(root))


def test_output_fn_gets_each_item_or_as_a_generator_the_whole_stream(
    start, tmp_path: Path, model_root, front
):
    handler = """
        import torch
        def model_fn(model_dir): return 0
        def input_fn(body, content_type): return body
        def predict_fn(data, model):
            assert torch.is_inference_mode_enabled()
            for word in data.split():
                assert torch.is_inference_mode_enabled()
                yield word
        def output_fn(prediction, accept):
            %s
    """
    root = model_root(handler % "return prediction.upper() + ';', 'text/x-words'")
    server = start(root, BYOC_FRONT=front).wait_ready()
    answer = server.invoke("one two", "application/json")
    assert (answer.body, answer.headers["content-type"]) == (b"ONE;TWO;", "text/x-words")
    assert answer.headers["transfer-encoding"] == "chunked"
    server.terminate()
    code = root / "model" / "code" / "inference.py"
    text = "yield accept + ':'\n    for word in prediction: yield word"
    code.write_text(code.read_text().replace(code.read_text().split("accept):\n    ")[1], text))
    server = start(root, BYOC_FRONT=front).wait_ready()
    assert server.invoke("one two", "application/json").body == b"application/json:onetwo"


def test_a_stop_lets_a_stream_end(start, root: Path, front, topology):
    server = start(root, BYOC_FRONT=front, BYOC_TOPOLOGY=topology).wait_ready()
    with streaming(server, {"items": ["first"], "gate": f"stop-{front}"}) as response:
        assert response.read(5) == b"first"
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(server.terminate()))
        stopping.start()

        def refused() -> bool:
            return server.ping() is None

        server.wait_until(refused)
        (root / f"stop-{front}").touch()
        assert response.read() == b"after"
    stopping.join(60)
    assert stopped == [0]


def test_a_stream_that_lasts_too_long_is_ended_in_its_own_words(start, root: Path, front, topology):
    server = start(
        root, BYOC_FRONT=front, BYOC_TOPOLOGY=topology, BYOC_STREAM_TIMEOUT_SECONDS="1"
    ).wait_ready()
    with streaming(server, {"endless": True}, "application/jsonlines") as response:
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
        last = json.loads(broken.value.partial.splitlines()[-1])
        assert last["error"]["code"] == "deadline_exceeded"
    with streaming(server, {"items": ["a"], "async": True, "forever": True}) as response:
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
        assert broken.value.partial == b"a"
