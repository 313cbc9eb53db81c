from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from byoc_serving.backend import settle
from byoc_serving.batcher import Batcher
from byoc_serving.deadline import ABANDONED, too_late
from byoc_serving.exchange import Invocation, Response
from byoc_serving.settings import MAX_WAIT_S, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.serving.conftest import Server

HANDLER = """
    import os, pathlib, sys, time, torch
    FOLDER = pathlib.Path(os.environ["FOLDER"])
    class Panic(BaseException): pass
    def model_fn(model_dir): return torch.nn.Identity()
    def predict_fn(data, model):
        value = int(data.sum())
        with open(FOLDER / "seen", "a") as seen:
            seen.write(f"{value}\\n")
        while value == 99 and not (FOLDER / "go").exists():
            time.sleep(0.005)
        if value == 66:
            sys.exit(3)
        if value == 77:
            raise Panic("a panic of an extension")
        return data
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("deadline")
    return path


@pytest.fixture(scope="module")
def server(front, folder, module_server) -> Server:
    started: Server = module_server(
        HANDLER, BYOC_FRONT=front, FOLDER=str(folder), BYOC_DEADLINE_SECONDS="1"
    )
    return started


@pytest.fixture
def held(server: Server, folder: Path) -> Iterator[Any]:
    """The model is busy until ``go`` exists."""
    for name in ("go", "seen"):
        (folder / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.invoke, "[[99]]")
        server.wait_until(lambda: "99" in seen(folder))
        yield running
        (folder / "go").touch()
        assert running.result(30).status == 200


def seen(folder: Path) -> list[str]:
    path = folder / "seen"
    return path.read_text().split() if path.exists() else []


def test_request_that_waited_beyond_its_deadline_is_504_and_never_reaches_the_model(
    server: Server, folder, held
):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.invoke, "[[7]]")
        began = time.monotonic()
        server.wait_until(lambda: time.monotonic() > began + 1.5)
        (folder / "go").touch()
        answer = waiting.result(30)
    assert (answer.status, answer.json["error"]["code"]) == (504, "deadline_exceeded")
    assert "BYOC_DEADLINE_SECONDS" in answer.error
    assert server.invoke("[[8]]").status == 200
    assert "7" not in seen(folder)
    assert "8" in seen(folder)


@pytest.mark.parametrize("value", ["66", "77"])
def test_handler_that_exits_fails_its_own_request_and_the_model_thread_lives(
    server: Server, value: str
):
    answer = server.invoke(f"[[{value}]]")
    assert answer.status == 500
    assert "predict_fn ended with" in answer.error
    assert "Traceback" not in answer.error
    assert server.invoke("[[1]]", timeout=10).json == [[1.0]]


def test_deadline_is_looked_at_with_the_given_clock():
    invocation = Invocation([], deadline=10.0)
    assert too_late(invocation, lambda: 9.9) is None
    answer = too_late(invocation, lambda: 12.5)
    assert answer is not None
    assert answer.status == 504
    assert "2.5 s" in json.loads(answer.body)["error"]["message"]


def test_abandoned_request_is_not_run_and_its_cancelled_future_stays_as_it_is():
    invocation = Invocation([])
    invocation.future = Future()
    assert too_late(invocation) is None
    assert invocation.future.cancel()
    assert too_late(invocation) is ABANDONED
    settle([(invocation, Response(200))])
    assert invocation.future.cancelled()


def test_future_that_is_cancelled_while_it_is_settled_harms_nobody():
    class Race(Future[Response]):
        def done(self) -> bool:
            answer = super().done()
            self.cancel()
            return answer

    first, second = Invocation([]), Invocation([])
    first.future, second.future = Race(), Future()
    settle([(first, Response(200)), (second, Response(200))])
    assert second.future.result(0).status == 200


def test_batcher_survives_what_is_no_exception():
    answers: list[tuple[int, str]] = []

    def run(items: list[int]) -> list[str]:
        raise SystemExit(3)

    batcher: Batcher[int, str] = Batcher(run, answers.extend, lambda i, e: type(e).__name__, 9)
    thread = threading.Thread(target=batcher.serve)
    thread.start()
    batcher.submit(1)
    batcher.close()
    thread.join(10)
    assert answers == [(1, "SystemExit")]


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, MAX_WAIT_S),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "120"}, 120),
        ({"SAGEMAKER_TS_RESPONSE_TIMEOUT": "90"}, 90),
        (
            {
                "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2",
                "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "70",
            },
            70,
        ),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "70", "BYOC_DEADLINE_SECONDS": "0.5"}, 0.5),
    ],
)
def test_deadline_comes_from_the_first_variable_that_is_set(variables, seconds):
    assert Settings.from_environ(variables).deadline_s == seconds
