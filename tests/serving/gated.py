"""Servers whose loads and requests go on when a test says so."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.serving.conftest import Server


ECHO = """
    import torch
    def model_fn(model_dir):
        return torch.nn.Identity()
"""
#: Waits for files, so that a test decides when a load or a request goes on.
GATED = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path(os.environ["GATE"])
    def wait(name):
        (GATE / f"{name}.reached").touch()
        while not (GATE / name).exists():
            time.sleep(0.005)
    def model_fn(model_dir):
        wait("load")
        return torch.nn.Identity()
    def predict_fn(data, model):
        if data.sum() == 99:
            wait("predict")
        if data.sum() == 66:
            os.kill(os.getpid(), 9)
        return model(data)
"""


def starter(
    start: Callable[..., Server], model_root: Callable[..., Path], gate: Path, front: str
) -> Callable[..., Server]:
    """Starts servers that wait for files in the folder ``gate``."""

    def begin(**environ: str) -> Server:
        return start(model_root(GATED), GATE=str(gate), BYOC_FRONT=front, **environ)

    return begin


@contextlib.contextmanager
def held_request(server: Server, gate: Path) -> Iterator[threading.Thread]:
    """A request that is inside predict_fn until the gate opens."""
    answers: list[int] = []

    def ask() -> None:
        answers.append(server.invoke("[[99]]").status)

    thread = threading.Thread(target=ask)
    thread.start()
    server.wait_until((gate / "predict.reached").exists)
    yield thread
    thread.join(30)
    assert answers == [200]


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found
