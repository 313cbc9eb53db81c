"""The default functions over HTTP, on both fronts."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.conftest import Server

ROW = [[1.0, 2.0, 3.0, 6.0]]
EXPECTED = [[5.0, 7.0, 9.0, 15.0]]


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROW), "application/json"),
        (json.dumps(ROW), "application/json; charset=utf-8"),
        (json.dumps({"instances": ROW}), "Application/JSON"),
        (json.dumps({"inputs": ROW}), "application/json"),
        ("[1, 2, 3, 6]\n", "application/jsonlines"),
        ('{"features": [1, 2, 3, 6]}', "application/x-jsonlines"),
        ("1,2,3,6\n", "text/csv"),
        ("1,2,3,6\r\n", "text/csv; header=absent"),
        (npy(np.array(ROW, dtype=np.float32)), "application/x-npy"),
        (npy(np.array(ROW, dtype=np.float64)), "application/x-npy"),
        (npy(np.array(ROW, dtype=">f4")), "application/x-npy"),
        (npy(np.asfortranarray(np.array(ROW * 2, dtype=np.float32))[:1]), "application/x-npy"),
    ],
)
def test_each_input_type_gets_the_models_answer(shared_server: Server, body, content_type):
    answer = shared_server.invoke(body, content_type)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == EXPECTED


@pytest.mark.contract(62)
def test_missing_content_type_and_accept_mean_json(shared_server: Server):
    answer = shared_server.invoke(json.dumps(ROW), content_type=None)
    assert (answer.status, answer.json) == (200, EXPECTED)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.contract(63)
@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/json;q=0.2, text/csv;q=0.9", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.1", "application/json"),
        ("application/*;q=0.5, text/*", "text/csv"),
        ("application/x-npy, */*;q=0", "application/x-npy"),
        ("application/jsonlines", "application/jsonlines"),
    ],
)
def test_accept_chooses_the_answers_type(shared_server: Server, accept, content_type):
    answer = shared_server.invoke(json.dumps(ROW), accept=accept)
    assert answer.status == 200
    assert answer.headers["content-type"] == content_type


def test_answers_are_equal_in_every_type(shared_server: Server):
    body = json.dumps(ROW * 2)
    csv = shared_server.invoke(body, accept="text/csv").body.decode()
    assert [[float(x) for x in line.split(",")] for line in csv.splitlines()] == EXPECTED * 2
    lines = shared_server.invoke(body, accept="application/jsonlines").body.splitlines()
    assert [json.loads(line) for line in lines] == EXPECTED * 2
    array = np.load(
        io.BytesIO(shared_server.invoke(body, accept="application/x-npy").body),
        allow_pickle=False,
    )
    assert array.dtype == np.float32
    assert array.tolist() == EXPECTED * 2


@pytest.mark.contract(64)
@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status", "words"),
    [
        (b"{}", "application/xml", None, 415, "text/csv"),
        (b"\x00\x01", "application/octet-stream", None, 415, "input_fn"),
        (b"[[1,2,3,4]]", "application/json", "text/html", 406, "application/json"),
        (b"[[1,2,3", "application/json", None, 400, "line 1 column"),
        (b"", "application/json", None, 400, "empty"),
        (b"\xff\xfe", "application/json", None, 400, "UTF-8"),
        (b"[" * 3000 + b"]" * 3000, "application/json", None, 400, "depth"),
        (b"[[1,2],[3]]", "application/json", None, 400, "ragged"),
        (b"[[1,null,3,4]]", "application/json", None, 400, "null at [0][1]"),
        (b'[[1,"2",3,4]]', "application/json", None, 400, "'2'"),
        (b"[[1,1e300,3,4]]", "application/json", None, 400, "float32"),
        (b"[NaN]", "application/json", None, 400, "not JSON"),
        (b"7", "application/json", None, 400, "array"),
        (b'{"a": 1}', "application/json", None, 400, "instances"),
        (b"[]", "application/json", None, 400, "empty"),
        (b"1,2\n3\n", "text/csv", None, 400, "row"),
        (b"1,x,3,4\n", "text/csv", None, 400, "row 1, column 2"),
        (b"\xff\xfe,1\n", "text/csv", None, 400, "UTF-8"),
        (b"\n\n", "text/csv", None, 400, "blank"),
        (b"[1,2,3,4]\n[1,2]\n", "application/jsonlines", None, 400, "line 2"),
        (b"nothing", "application/x-npy", None, 400, "NUMPY"),
        (npy(np.zeros((1, 4)))[:-3], "application/x-npy", None, 400, "bytes"),
        (b"not an image", "image/png", None, 400, "PNG"),
        (b"[[1,2,3]]", "application/json", None, 422, "model refuses"),
    ],
)
def test_bad_requests_get_a_status_and_one_clear_line(
    shared_server: Server, body, content_type, accept, status, words
):
    answer = shared_server.invoke(body, content_type, accept)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.body) < 2048
    assert words in answer.error
    assert "\n" not in answer.error
    assert "Traceback" not in answer.error
    assert "/site-packages/" not in answer.error
    assert answer.json["error"]["request_id"]
    assert shared_server.invoke(json.dumps(ROW)).json == EXPECTED


@pytest.mark.contract(79)
def test_pickled_npy_is_refused_and_never_loaded(shared_server: Server, tmp_path):
    witness = tmp_path / "loaded"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(witness),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    answer = shared_server.invoke(buffer.getvalue(), "application/x-npy")
    assert answer.status == 400
    assert "pickle" in answer.error
    assert not witness.exists()


def test_npy_header_that_promises_a_billion_elements_is_refused(shared_server: Server):
    body = npy(np.zeros((1, 4), dtype=np.float32)).replace(b"(1, 4), }    ", b"(10**9,), }  ")
    assert shared_server.invoke(body, "application/x-npy").status == 400
    huge = npy(np.zeros(4, dtype=np.float32)).replace(b"(4,), }         ", b"(1000000000,), }")
    answer = shared_server.invoke(huge, "application/x-npy")
    assert answer.status == 400
    assert "4000000000 bytes" in answer.error


def test_png_reaches_the_default_model_as_planes_between_0_and_1(shared_server: Server):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (4, 4), 255).save(buffer, "PNG")
    answer = shared_server.invoke(buffer.getvalue(), "image/png")
    assert answer.status == 200, answer.body
    assert np.array(answer.json).shape == (1, 1, 4, 4)
    assert answer.json[0][0][0] == [3.0, 3.0, 3.0, 3.0]


@pytest.mark.contract(71)
@pytest.mark.parametrize("path", ["/", "/models", "/execution-parameters/x", "/ping/x"])
def test_unknown_paths_are_a_404_in_json(shared_server: Server, path):
    answer = shared_server.request("GET", path)
    assert answer.status == 404
    assert answer.json["error"]["code"] == "not_found"


@pytest.mark.contract(71)
def test_unknown_headers_are_ignored(shared_server: Server):
    headers = {f"X-Strange-{i}": "ä".encode("latin-1").decode("latin-1") for i in range(50)}
    assert shared_server.invoke(json.dumps(ROW), headers=headers).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_on_invocations_are_405_with_allow(shared_server: Server, method):
    answer = shared_server.request(method, "/invocations")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.contract(57)
def test_ping_answers_get_head_and_post(shared_server: Server):
    assert shared_server.request("GET", "/ping").status == 200
    assert shared_server.request("POST", "/ping").status == 200
    head = shared_server.request("HEAD", "/ping")
    assert (head.status, head.body) == (200, b"")
    assert shared_server.request("DELETE", "/ping").headers["allow"] == "GET, HEAD, POST"


@pytest.mark.contract(66)
def test_chunked_body_without_content_length_is_read(shared_server: Server):
    def pieces() -> Iterator[bytes]:
        body = json.dumps(ROW).encode()
        for i in range(0, len(body), 5):
            yield body[i : i + 5]

    answer = shared_server.request(
        "POST",
        "/invocations",
        pieces(),
        {"Content-Type": "application/json"},
        encode_chunked=True,
    )
    assert (answer.status, answer.json) == (200, EXPECTED)


@pytest.mark.contract(65)
@pytest.mark.parametrize("megabytes", [6, 25, 100])
def test_large_bodies_are_read_whole(shared_server: Server, megabytes):
    rows = megabytes * 1024 * 1024 // 16
    array = np.ones((rows, 4), dtype=np.float32)
    answer = shared_server.invoke(npy(array), "application/x-npy", "application/x-npy")
    assert answer.status == 200, answer.body[:300]
    assert np.load(io.BytesIO(answer.body)).shape == (rows, 4)


@pytest.mark.contract(65)
def test_body_over_the_limit_is_refused_before_it_is_sent(shared_server: Server):
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 200000000\r\n\r\n"
        )
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 413
        assert b"105906176" in response.read()


@pytest.mark.contract(65)
def test_chunked_body_over_the_limit_is_refused_while_it_is_read(shared_server: Server):
    piece = b"10000\r\n" + b"1" * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=30) as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(1700):
                client.sendall(piece)
        except ConnectionError:
            pass
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 413


def test_request_id_of_the_caller_comes_back_in_errors(shared_server: Server):
    headers = {"X-Amzn-SageMaker-Inference-Id": "abc-1", "X-Amzn-RequestId": "other"}
    answer = shared_server.invoke("[", headers=headers)
    assert answer.json["error"]["request_id"] == "abc-1"


def test_expect_100_continue_is_answered(shared_server: Server):
    body = json.dumps(ROW).encode()
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert client.recv(1024).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert json.loads(response.read()) == EXPECTED


def test_many_clients_at_once_each_get_their_own_answer(shared_server: Server):
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> bool:
        answer = shared_server.invoke(json.dumps([[number] * 4] * (1 + number % 3)))
        return bool(answer.json == [[3.0 * number] * 4] * (1 + number % 3))

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(400)))
