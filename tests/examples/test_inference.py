"""The example's handler functions behind the real server."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from byoc.local.runners.base import Running


def wait_until_ready(server: Running, lines: list[str]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, lines
        connection = http.client.HTTPConnection(*server.address, timeout=10)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/ping")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(lines)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> Iterator[Callable[..., Any]]:
    """POST a body to the served example; the status and the answer."""
    from byoc.local.layout import TrainingLayout
    from byoc.local.runners.process import ProcessRunner
    from tests.examples.conftest import EXAMPLE

    root = tmp_path_factory.mktemp("job")
    lines: list[str] = []
    runner = ProcessRunner()
    layout = TrainingLayout(root, {"epochs": "6"}, {"training": few_digits})
    layout.create()
    program = {"SAGEMAKER_PROGRAM": "train.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(EXAMPLE)}
    assert runner.train(layout, program, lines.append).wait() == 0, lines
    server = runner.serve(layout.model, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}, lines.append)
    try:
        wait_until_ready(server, lines)

        def post(body: bytes, content_type: str) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(*server.address, timeout=60)
            connection.request("POST", "/invocations", body, {"Content-Type": content_type})
            response = connection.getresponse()
            answer = response.status, response.read()
            connection.close()
            return answer

        yield post
    finally:
        code = server.stop(30)
    assert code == 0, lines


@pytest.fixture(scope="module")
def digit(few_digits: Path) -> np.ndarray:
    from examples.mnist import dataset

    images: np.ndarray = dataset.load(few_digits, "t10k")[0][5]
    return images


def tensor(image: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = ((image[None, None] / 255 - 0.1307) / 0.3081).astype(np.float32)
    return normalised


def picture(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def test_json_npy_csv_and_png_of_one_digit_get_the_same_answer(ask, digit):
    values = tensor(digit)
    npy = io.BytesIO()
    np.save(npy, values)
    csv = ",".join(str(value) for value in values.ravel()).encode()
    answers = []
    for body, content_type in (
        (json.dumps(values.tolist()).encode(), "application/json"),
        (npy.getvalue(), "application/x-npy"),
        (csv, "text/csv"),
        (picture(digit, "png"), "image/png"),
    ):
        status, answer = ask(body, content_type)
        assert status == 200, (content_type, answer)
        answers.append(json.loads(answer))
    assert np.shape(answers[0]) == (1, 10)
    assert np.exp(answers[0]).sum() == pytest.approx(1, abs=1e-5)
    for answer in answers[1:]:
        assert np.allclose(answer, answers[0], atol=1e-4)


def test_a_large_colour_jpeg_is_brought_to_28x28(ask, digit):
    large = np.kron(digit, np.ones((8, 8), np.uint8))
    status, answer = ask(picture(np.stack([large] * 3, axis=-1), "jpeg"), "image/jpeg")
    plain = json.loads(ask(picture(digit, "png"), "image/png")[1])
    assert status == 200
    assert np.argmax(json.loads(answer)) == np.argmax(plain)


def test_three_digits_in_one_body_get_three_answers(ask, digit):
    body = json.dumps(np.concatenate([tensor(digit)] * 3).tolist()).encode()
    status, answer = ask(body, "application/json")
    assert status == 200
    assert np.shape(json.loads(answer)) == (3, 10)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[[1, 2, 3]]", "application/json"),
        (b"[]", "application/json"),
        (b"\x89PNG not really", "image/png"),
        (b"", "image/png"),
    ],
)
def test_what_is_no_digit_is_refused_with_one_line(ask, body, content_type):
    status, answer = ask(body, content_type)
    assert status == 400
    error = json.loads(answer)["error"]
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
