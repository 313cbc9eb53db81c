"""The user's functions inside real servers."""

from __future__ import annotations

import http.server
import io
import json
import tarfile
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = """
    import json
    def model_fn(model_dir{c}):
        return {{"dir": model_dir{m}}}
    def input_fn(body, content_type{c}):
        return [type(body).__name__, content_type{i}]
    def predict_fn(data, model{c}):
        return data + [sorted(model)]
    def output_fn(prediction, accept{c}):
        return json.dumps(prediction + [accept])
"""


@pytest.mark.contract(75)
@pytest.mark.parametrize("with_context", [False, True])
def test_all_four_functions_are_honoured_with_and_without_context(
    start, model_root, front, with_context
):
    handler = ALL.format(
        c=", context" if with_context else "",
        m=', "gpu": context.system_properties.get("gpu_id")' if with_context else "",
        i=', context.get_request_header(0, "X-Colour")' if with_context else "",
    )
    server = start(model_root(handler), BYOC_FRONT=front).wait_ready()
    answer = server.invoke("[1]", accept="text/csv", headers={"X-Colour": "blue"})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/csv"
    if with_context:
        assert answer.json == ["str", "application/json", "blue", ["dir", "gpu"], "text/csv"]
    else:
        assert answer.json == ["str", "application/json", ["dir"], "text/csv"]
    assert server.invoke(b"\x00", "application/octet-stream").json[0] == "bytes"
    assert server.invoke("1,2", "text/csv").json[0] == "str"
    assert server.invoke("[1]\n", "application/jsonlines").json[0] == "str"
    not_text = server.invoke(b"\xff", "text/csv")
    assert not_text.status == 400
    assert "byte 0 is 0xff" in not_text.error


MODEL = "import torch\ndef model_fn(model_dir): return torch.nn.Identity()\n"


@pytest.mark.contract(75)
@pytest.mark.parametrize(
    ("further", "expected"),
    [
        ("", [[1.0, 2.0]]),
        ("def input_fn(body, content_type): return torch.ones(1, 2)", [[1.0, 1.0]]),
        ("def predict_fn(data, model): return data + 1", [[2.0, 3.0]]),
        ("def output_fn(prediction, accept): return {'sum': prediction.sum()}", {"sum": 3.0}),
        ("async def predict_fn(data, model): return data * 2", [[2.0, 4.0]]),
    ],
)
def test_each_function_alone_replaces_only_its_default(start, model_root, further, expected):
    server = start(model_root(MODEL + further + "\n")).wait_ready()
    answer = server.invoke("[[1, 2]]")
    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.contract(75)
def test_transform_fn_alone_is_honoured(start, model_root, front):
    handler = MODEL + (
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    return f'{body}|{content_type}|{accept}', 'text/plain'\n"
    )
    server = start(model_root(handler), BYOC_FRONT=front).wait_ready()
    answer = server.invoke("[1]")
    assert answer.body == b"[1]|application/json|application/json"
    assert answer.headers["content-type"] == "text/plain"


@pytest.mark.contract(75)
def test_transform_fn_with_one_of_the_others_is_refused_at_start(start, model_root):
    handler = MODEL + "def transform_fn(m, b, c, a): ...\ndef predict_fn(d, m): ...\n"
    server = start(model_root(handler))
    assert server.wait_end() == 3
    assert "transform_fn together with predict_fn" in server.lines[-1]


@pytest.mark.contract(76)
def test_body_and_type_from_output_fn_are_sent(start, model_root, front):
    handler = MODEL + "def output_fn(p, accept): return b'<x/>', 'application/xml'\n"
    server = start(model_root(handler), BYOC_FRONT=front).wait_ready()
    answer = server.invoke("[1]")
    assert (answer.body, answer.headers["content-type"]) == (b"<x/>", "application/xml")


@pytest.mark.parametrize(
    "functions",
    [
        "def predict_fn(d, m): return d\ndef output_fn(p, a): return b'x', KIND",
        "def transform_fn(m, b, c, a): return b'x', KIND",
    ],
)
def test_content_type_that_would_add_a_header_is_an_error_of_the_handler(
    start, model_root, front, functions
):
    kind = 'KIND = "text/plain\\r\\nX-Smuggled: 1"\n'
    server = start(model_root(MODEL + kind + functions), BYOC_FRONT=front).wait_ready()
    answer = server.invoke("[[1]]")
    assert answer.status == 500
    assert "the handler failed in" in answer.error
    assert "x-smuggled" not in answer.headers
    identifier = answer.json["error"]["request_id"]
    server.wait_until(lambda: f"request {identifier} failed in" in server.log)
    assert server.terminate() == 0
    assert "content type 'text/plain" in server.log


def test_where_a_refusal_came_from_is_in_the_log_when_that_is_asked_for(start, model_root):
    handler = MODEL + "def predict_fn(d, m): raise ValueError('a bug, perhaps')\n"
    server = start(model_root(handler), SAGEMAKER_CONTAINER_LOG_LEVEL="10").wait_ready()
    answer = server.invoke("[[1]]")
    assert answer.status == 422
    assert server.terminate() == 0
    (line,) = [line for line in server.lines if "refused in predict_fn" in line]
    assert answer.json["error"]["request_id"] in line
    assert "inference.py" in line


@pytest.mark.contract(67)
def test_custom_attributes_are_read_and_come_back_only_when_set(start, model_root, front):
    handler = MODEL + textwrap.dedent("""
        def output_fn(prediction, accept, context):
            seen = context.custom_attributes
            if seen == "quiet":
                return "quiet"
            context.custom_attributes = seen + ";seen" if seen != "long" else "x" * 1025
            context.set_response_header(0, "X-Colour", "red")
            return seen
    """)
    server = start(model_root(handler), BYOC_FRONT=front).wait_ready()
    name = "X-Amzn-SageMaker-Custom-Attributes"
    answer = server.invoke("[1]", headers={name: "trace=7"})
    assert answer.body == b"trace=7"
    assert answer.headers[name.lower()] == "trace=7;seen"
    assert answer.headers["x-colour"] == "red"
    assert name.lower() not in server.invoke("[1]", headers={name: "quiet"}).headers
    assert server.invoke("[1]", headers={name: "long"}).status == 500


def test_exceptions_are_mapped_and_500_hides_what_the_log_tells(start, model_root, front):
    handler = MODEL + textwrap.dedent("""
        def input_fn(body, content_type):
            if body == "bad": raise ValueError("the colour is missing")
            return body
        def predict_fn(data, model):
            if data == "refuse": raise ValueError("only blue")
            if data == "bug": return {}["secret-key"]
            return data
    """)
    server = start(model_root(handler), BYOC_FRONT=front).wait_ready()
    bad = server.invoke("bad")
    assert (bad.status, bad.error) == (400, "ValueError: the colour is missing")
    assert server.invoke("refuse").status == 422
    headers = {"X-Amzn-SageMaker-Inference-Id": "find-me"}
    bug = server.invoke("bug", headers=headers)
    assert (bug.status, bug.json["error"]["request_id"]) == (500, "find-me")
    assert "secret-key" not in bug.error
    server.wait_until(lambda: "find-me" in server.log)
    line = next(line for line in server.lines if "find-me" in line)
    assert "secret-key" in line
    assert "Traceback" in line


def test_json_log_lines_are_json(start, model_root):
    handler = MODEL + "def predict_fn(d, m): return 1 / 0\n"
    server = start(model_root(handler), BYOC_LOG_FORMAT="json").wait_ready()
    assert server.invoke("[1]", headers={"X-Amzn-RequestId": "r-1"}).status == 500
    server.wait_until(lambda: "r-1" in server.log)
    records = [json.loads(line) for line in server.lines]
    assert any(r.get("request_id") == "r-1" and "ZeroDivision" in r["traceback"] for r in records)


def test_answer_with_nan_is_406_in_json_and_sent_in_npy(start, model_root):
    handler = MODEL + "def predict_fn(data, model): return data / 0 * 0\n"
    server = start(model_root(handler)).wait_ready()
    answer = server.invoke("[[1]]")
    assert answer.status == 406
    assert "application/x-npy" in answer.error
    assert server.invoke("[[1]]", accept="application/x-npy").status == 200
    assert server.invoke("[[1]]", accept="text/csv").body == b"nan\n"


@pytest.mark.contract(77)
def test_satisfied_requirements_need_no_pip(start, model_root):
    root = model_root(MODEL)
    (root / "model/code/requirements.txt").write_text("# ours\nnumpy>=1.0\nTorch\n")
    server = start(root, PIP_INDEX_URL="http://127.0.0.1:9/").wait_ready()
    assert server.invoke("[[1]]").status == 200


@pytest.mark.contract(77)
def test_missing_requirement_without_network_fails_the_start_with_that_reason(start, model_root):
    root = model_root(MODEL)
    (root / "model/code/requirements.txt").write_text("a-package-that-nobody-has==7\n")
    server = start(
        root,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
        BYOC_PIP_TIMEOUT_SECONDS="60",
        SAGEMAKER_MODEL_SERVER_WORKERS="2",
    )
    assert server.wait_end() == 3
    assert "a-package-that-nobody-has==7" in server.lines[-1]
    assert "is not installed" in server.lines[-1]


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


OTHER = MODEL + "from helper import WORD\ndef output_fn(p, a): return WORD\n"


@pytest.mark.contract(78)
@pytest.mark.parametrize("form", ["directory", "file", "tarball", "platform-path"])
def test_program_is_found_in_a_local_submit_directory(start, model_root, tmp_path, form):
    root = model_root(MODEL)
    folder = tmp_path / "submitted"
    folder.mkdir()
    if form == "platform-path":
        folder = root / "model" / "code"
    (folder / "other.py").write_text(OTHER)
    (folder / "lib").mkdir()
    (folder / "lib" / "helper.py").write_text("WORD = 'found'\n")
    packed = archive(
        tmp_path / "sourcedir.tar.gz", {"other.py": OTHER, "helper.py": "WORD = 'found'\n"}
    )
    submit = {
        "directory": str(folder),
        "file": f"file://{folder}",
        "tarball": str(packed),
        "platform-path": "/opt/ml/model/code",
    }[form]
    server = start(root, SAGEMAKER_PROGRAM="other.py", SAGEMAKER_SUBMIT_DIRECTORY=submit)
    assert server.wait_ready().invoke("[1]").body == b"found"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """An S3 endpoint of our own: its address and its objects."""
    objects: dict[str, bytes] = {}

    class Objects(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            content = objects.get(self.path.split("?")[0])
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", objects
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.contract(78)
def test_program_is_found_in_an_s3_tarball(start, model_root, tmp_path, bucket):
    address, objects = bucket
    packed = archive(tmp_path / "s.tar.gz", {"other.py": OTHER, "helper.py": "WORD = 'from s3'\n"})
    objects["/bucket/a/sourcedir.tar.gz"] = packed.read_bytes()
    environ = {
        "SAGEMAKER_PROGRAM": "other.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/a/sourcedir.tar.gz",
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "eu-west-1",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
    }
    server = start(model_root(MODEL), **environ).wait_ready()
    assert server.invoke("[1]").body == b"from s3"
    environ["SAGEMAKER_SUBMIT_DIRECTORY"] = "s3://bucket/missing.tar.gz"
    missing = start(server.root, **environ)
    assert missing.wait_end() == 3
    assert "s3://bucket/missing.tar.gz" in missing.lines[-1]


def test_unknown_program_is_told_with_what_is_there(start, model_root):
    server = start(model_root(MODEL), SAGEMAKER_PROGRAM="absent.py")
    assert server.wait_end() == 3
    assert "SAGEMAKER_PROGRAM='absent.py'" in server.lines[-1]
    assert "code/inference.py" in server.lines[-1]


def test_handlers_files_are_importable_and_nothing_is_written_beside_them(start, model_root):
    root = model_root("from shape import Net\ndef model_fn(model_dir): return Net()\n")
    code = root / "model" / "code"
    (code / "shape.py").write_text("import torch\nclass Net(torch.nn.Identity): ...\n")
    server = start(root).wait_ready()
    assert server.invoke("[[1]]").status == 200
    assert sorted(path.name for path in code.iterdir()) == ["inference.py", "shape.py"]


def test_one_bad_request_in_a_batch_harms_no_other(start, model_root):
    from concurrent.futures import ThreadPoolExecutor

    # Slow enough as it comes for a faster form to take over meanwhile.
    handler = """
        import torch
        class Net(torch.nn.Module):
            def forward(self, x):
                if (x == 13).any(): raise RuntimeError("size 13 has no shape")
                for _ in range(200): x = x * 1.0
                return x * 2
        def model_fn(model_dir): return Net()
    """
    server = start(model_root(handler)).wait_ready()
    for faster in (False, True):
        until = time.monotonic() + 60
        while faster and "model made faster" not in server.log:
            assert time.monotonic() < until
            assert server.invoke("[[1]]").status == 200
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: server.invoke(json.dumps([[i % 20]])), range(200)))
        for number, answer in enumerate(answers):
            if number % 20 == 13:
                assert answer.status == 422
                assert "RuntimeError: size 13 has no shape" in answer.json["error"]["message"]
            else:
                assert answer.json == [[2.0 * (number % 20)]]


def test_model_whose_rows_depend_on_each_other_is_not_batched(start, model_root):
    from concurrent.futures import ThreadPoolExecutor

    handler = """
        import torch
        class Cumulative(torch.nn.Module):
            def forward(self, x):
                return torch.cumsum(x, dim=0)
        def model_fn(model_dir): return Cumulative()
    """
    server = start(model_root(handler)).wait_ready()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: server.invoke(json.dumps([[i], [1]])), range(1, 200)))
    assert [a.json for a in answers] == [[[float(i)], [i + 1.0]] for i in range(1, 200)]
    assert "batching is off for inputs of shape [N, 1]" in server.log
