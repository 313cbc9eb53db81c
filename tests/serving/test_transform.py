"""What batch transform jobs need, on both fronts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.serving.conftest import Server

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def job(
    front: str,
    torchscript: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve_command: list[str],
    server_class: Any,
) -> Iterator[Server]:
    """A server as a transform job starts it, for whole objects of any size."""
    root = tmp_path_factory.mktemp(f"transform-{front}")
    (root / "model").mkdir()
    (root / "model" / "model.pt").write_bytes(torchscript.read_bytes())
    environ = {
        "BYOC_FRONT": front,
        "SAGEMAKER_BATCH": "True",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0",
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "3",
        "TMPDIR": str(root),
    }
    server = server_class(root, environ, serve_command)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


@pytest.mark.contract(85)
def test_execution_parameters_without_a_job_fit_the_limits(shared_server: Server):
    answer = shared_server.request("GET", "/execution-parameters")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "MaxConcurrentTransforms": 2,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 6,
    }
    refused = shared_server.request("POST", "/execution-parameters", b"")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.contract(85)
def test_execution_parameters_say_what_the_job_has_set(job: Server):
    assert job.request("GET", "/execution-parameters").json == {
        "MaxConcurrentTransforms": 3,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 0,
    }


@pytest.mark.contract(85)
def test_execution_parameters_can_be_switched_off(start, model_root, torchscript, front):
    root = model_root(model__pt=torchscript.read_bytes())
    server = start(root, BYOC_FRONT=front, BYOC_EXECUTION_PARAMETERS="0").wait_ready()
    assert server.request("GET", "/execution-parameters").status == 404


@pytest.mark.contract(86)
@pytest.mark.parametrize(
    ("content_type", "line"),
    [
        ("text/csv", lambda row: ",".join(map(str, row))),
        ("application/jsonlines", lambda row: json.dumps({"features": row})),
        ("application/jsonlines", json.dumps),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_n_records_become_n_lines_in_order(
    job: Server, content_type: str, line: Callable[[Any], str], end: str
):
    rows = np.arange(4 * 1000, dtype=np.float32).reshape(1000, 4)
    expected = 2 * rows + rows.mean(axis=1, keepdims=True)
    body = end.join(line(row) for row in rows.tolist())
    for text in (body, body + end):
        # Without an Accept the answer has the form of the records, so that they can be joined.
        answer = job.invoke(text, content_type)
        assert (answer.status, answer.headers["content-type"]) == (200, content_type)
        lines = answer.body.decode().splitlines()
        assert len(lines) == 1000
        got = [
            json.loads(text) if "json" in content_type else [float(v) for v in text.split(",")]
            for text in lines
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.contract(86)
@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
@pytest.mark.parametrize("body", ["", "\n", "\r\n\r\n", " \n"])
def test_a_body_without_a_record_is_a_clean_400(job: Server, content_type, body):
    answer = job.invoke(body, content_type)
    assert (answer.status, answer.json["error"]["code"]) == (400, "bad_body")


@pytest.mark.contract(87)
@pytest.mark.parametrize(
    ("content_type", "body", "named"),
    [
        ("text/csv", "1,2,3,4\n1,2,x,4\n", "row 2"),
        ("text/csv", "1,2,3,4\n1,2,3,4\n1,2\n", "row 3"),
        ("application/jsonlines", "[1,2,3,4]\n[1,2,3,4]\n{\n", "line 3"),
        ("application/jsonlines", "[1,2,3,4]\n[1,2,3]\n", "line 2"),
        ("application/jsonlines", '[1,2,3,4]\n{"features": ["x", 1, 2, 3]}\n', "line 2"),
    ],
)
def test_a_bad_record_is_named(job: Server, content_type, body, named):
    answer = job.invoke(body, content_type)
    assert 400 <= answer.status < 500
    assert named in answer.error


@pytest.mark.contract(65, 66)
def test_whole_objects_beyond_every_limit_come_chunked(job: Server):
    """MaxPayloadInMB 0: the object as it is, without Content-Length."""
    rows = np.tile(np.arange(4, dtype=np.float32), (9 * MIB, 1))
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + (b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 4), }" % len(rows)).ljust(117)
        + b"\n"
    )
    body = header + rows.tobytes()
    assert len(body) > 128 * MIB

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    answer = job.request(
        "POST",
        "/invocations",
        chunks(),
        {
            "Content-Type": "application/x-npy",
            "Accept": "application/x-npy",
            "Transfer-Encoding": "chunked",
        },
        timeout=300,
        encode_chunked=True,
    )
    assert answer.status == 200, answer.body[:300]
    assert len(answer.body) == len(body)
