"""A model that waits, dies or grows on request, and a look at the processes of a server."""

from __future__ import annotations

import contextlib
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.serving.conftest import Models

PROBE = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path({gate!r})
    def wait(name):
        (GATE / f"{{name}}.reached").touch()
        while not (GATE / name).exists():
            time.sleep(0.005)
    def model_fn(model_dir):
        wait("load")
        return torch.zeros({floats})
    def predict_fn(data, model):
        if data.sum() == 99:
            wait("predict")
        if data.sum() == 66:
            os.kill(os.getpid(), 9)
        if data.sum() == 55:
            raise MemoryError
        return data * 0 + os.getpid()
    def output_fn(prediction, accept):
        import json
        return json.dumps(prediction.long().tolist()), "application/json"
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The folder whose files open what the probe waits for."""
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "load").touch()
    return folder


@pytest.fixture
def probe(gate: Path) -> Callable[..., str]:
    """Makes the handler."""

    def make(floats: int = 1) -> str:
        return textwrap.dedent(PROBE.format(gate=str(gate), floats=floats))

    return make


@pytest.fixture
def held(gate: Path) -> Callable[[Models, str], contextlib.AbstractContextManager[None]]:
    """A request that is inside predict_fn until the gate opens, and then is answered."""

    @contextlib.contextmanager
    def inside(models: Models, name: str) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(models.invoke, name, "[[99]]")
            models.server.wait_until((gate / "predict.reached").exists)
            try:
                yield
            finally:
                (gate / "predict").touch()
            assert future.result(60).status == 200

    return inside


@pytest.fixture(scope="session")
def running() -> Callable[[int], bool]:
    """Whether a process runs."""

    def runs(pid: int) -> bool:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX"
        return False

    return runs


@pytest.fixture(scope="session")
def named() -> Callable[[str, int], list[int]]:
    """Processes of that name in the session that a server leads."""

    def find(comm: str, root: int) -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                    if name == comm and int(rest.split()[3]) == root:
                        found.append(int(folder.name))
        return found

    return find
