"""What only an NVIDIA GPU can show: ``pytest -m gpu``. Skipped, with the reason, elsewhere."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from byoc_serving.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.serving.conftest import Models, Server


def reason() -> str:
    """Why nothing here can run; empty when it can."""
    if not Machine.look(os.environ).gpus:
        return "no NVIDIA GPU is visible (no /dev/nvidia[0-9]*, or CUDA_VISIBLE_DEVICES hides it)"
    # In a process of its own: CUDA does not survive the forks of other tests.
    asked = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False
    )
    if done.stdout.strip() != "True":
        return "a GPU is visible, but torch cannot use it (driver older than torch's CUDA?)"
    return ""


@pytest.fixture(scope="module", autouse=True)
def _gpu() -> None:
    why = reason()
    if why:
        pytest.skip(why)


pytestmark = pytest.mark.gpu

MODEL = """
    import torch
    from torch import nn
    def build():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10),
        ).eval()
    def model_fn(model_dir):
        return build()
"""
#: An index out of range is a device-side assert; a size is memory to ask for.
FAULTY = """
    import os
    import torch
    def model_fn(model_dir):
        return torch.zeros(8, device="cuda")
    def predict_fn(data, model):
        if (data == 66).any():
            model[(data[:, 0] * 1000).long()]
            torch.cuda.synchronize()
        if len(data) > 2 and (data == 44).any():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return torch.cat([data * 2, torch.full_like(data, float(os.getpid()))], 1)
"""


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def ask(server: Server, array: Any) -> Any:
    answer = server.invoke(npy(array), "application/x-npy", "application/x-npy")
    assert answer.status == 200, (answer.body, server.log)
    return np.load(io.BytesIO(answer.body))


def expected(images: list[Any], folder: Path) -> list[Any]:
    """The model's own answers, on the CPU in float32."""
    import torch

    (folder / "model.py").write_text(textwrap.dedent(MODEL))
    model = runpy.run_path(str(folder / "model.py"))["build"]()
    with torch.inference_mode():
        return [model(torch.from_numpy(image)).numpy() for image in images]


@pytest.mark.parametrize(
    ("optimize", "tolerance"), [("off", 5e-3), ("freeze", 5e-3), ("compile", 5e-3), ("bf16", 5e-2)]
)
def test_answers_on_the_gpu_are_those_of_the_cpu(
    module_server: Callable[..., Server], tmp_path: Path, optimize: str, tolerance: float
) -> None:
    server = module_server(MODEL, BYOC_TOPOLOGY="isolated", BYOC_OPTIMIZE=optimize)
    generator = np.random.default_rng(1)
    images = [
        generator.standard_normal((rows, 1, 28, 28), dtype=np.float32)
        for rows in (1, 1, 2, 3, 8, 33, 64, 256)
    ]
    wanted = expected(images, tmp_path)
    scale = max(float(abs(answer).max()) for answer in wanted)

    def right(number: int) -> bool:
        seen = ask(server, images[number % len(images)])
        difference = abs(seen - wanted[number % len(images)]).max() / scale
        assert difference <= tolerance, difference
        return True

    right(0)
    if optimize != "off":
        server.wait_until(lambda: right(0) and "model made faster" in server.log, 300)
        assert "CUDA graphs" in server.log
    with ThreadPoolExecutor(16) as pool:
        # Often enough for each bucket to be captured, and to be used afterwards.
        assert all(pool.map(right, range(480)))
    assert "without CUDA graphs" not in server.log, server.log
    assert "synchronous" not in server.log, server.log
    assert "batching is off" not in server.log, server.log


def test_device_side_assert_replaces_the_process_and_nobody_else_fails(
    module_server: Callable[..., Server],
) -> None:
    server = module_server(FAULTY, BYOC_TOPOLOGY="isolated", BYOC_MAX_BATCH_SIZE="8")
    before = ask(server, np.ones((1, 1), np.float32))[0, 1]

    def one(number: int) -> int:
        value = 66.0 if number == 20 else float(number % 8)
        answer = server.invoke(
            npy(np.full((1, 1), value, np.float32)), "application/x-npy", timeout=240
        )
        return answer.status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(one, range(40)))
    assert statuses[20] == 500
    assert statuses[:20] + statuses[21:] == [200] * 39, server.log
    assert ask(server, np.ones((1, 1), np.float32))[0, 1] != before


def test_out_of_memory_halves_the_batch(module_server: Callable[..., Server]) -> None:
    server = module_server(FAULTY, BYOC_TOPOLOGY="isolated", BYOC_MAX_BATCH_SIZE="8")

    def one(_: int) -> float:
        return float(ask(server, np.full((1, 1), 44.0, np.float32))[0, 0])

    def halved() -> bool:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(one, range(64))) == [88.0] * 64
        return "out of memory with" in server.log

    server.wait_until(halved, 120)


def used_mib(pid: int) -> int:
    """GPU memory of the processes below ``pid``, by the driver's count for the whole GPU."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return sum(map(int, done.stdout.split()))


def test_gpu_memory_comes_back_when_a_model_is_unloaded(
    own_models: Callable[..., Models],
) -> None:
    models = own_models()
    pid = models.server.process.pid
    handler = """
        import torch
        def model_fn(model_dir):
            return torch.nn.Linear(16384, 16384, device="cuda")
        def predict_fn(data, model):
            return data
    """
    before = used_mib(pid)
    assert models.load("large", models.write(handler)).status == 200
    assert models.invoke("large").status == 200
    assert used_mib(pid) >= before + 1000
    assert models.delete("large").status == 200
    models.server.wait_until(lambda: used_mib(pid) <= before + 100, 60)


def test_first_answers_come_in_time(module_server: Callable[..., Server]) -> None:
    began = time.monotonic()
    server = module_server(MODEL, BYOC_TOPOLOGY="isolated")
    # Generous: a start of a minute or an answer of a second is a fault, not a slow machine.
    assert time.monotonic() - began < 60
    image = np.zeros((1, 1, 28, 28), np.float32)
    ask(server, image)
    times = []
    for _ in range(50):
        began = time.monotonic()
        ask(server, image)
        times.append(time.monotonic() - began)
    assert sorted(times)[len(times) // 2] < 0.1
