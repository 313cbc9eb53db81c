"""torch, imported once for all workers where that is safe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PRELOADED = """
import json, os, sys
from pathlib import Path
from byoc_serving.machine import Machine
from byoc_serving.preload import preload
from byoc_serving.settings import Settings

gpus = tuple(json.loads(sys.argv[1]))
done = preload(Settings.from_environ(os.environ), Machine(2, 1 << 33, gpus))
print(json.dumps([done, "torch" in sys.modules, os.environ.get("OMP_NUM_THREADS")]))
"""


def preloaded(root: Any, gpus: list[str], **environ: str) -> list[Any]:
    result = subprocess.run(
        [sys.executable, "-c", PRELOADED, json.dumps(gpus)],
        env={**os.environ, "BYOC_ROOT": str(root), "OMP_NUM_THREADS": "", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(result.stdout)
    return found


HANDLER = "model_fn = lambda _: lambda x: x"


def test_torch_is_imported_once_with_one_thread_a_worker(model_root):
    assert preloaded(model_root(HANDLER), []) == [True, True, "1"]


@pytest.mark.parametrize(
    ("gpus", "environ", "files"),
    [
        (["0"], {}, []),
        ([], {"SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/code.tar.gz"}, []),
        ([], {}, ["code/requirements.txt"]),
    ],
    ids=["a GPU, because CUDA does not survive a fork", "code that is not there yet", "packages"],
)
def test_torch_is_left_to_the_workers(model_root, gpus, environ, files):
    root = model_root(HANDLER)
    for name in files:
        (root / "model" / name).write_text("numpy\n")
    assert preloaded(root, gpus, **environ)[:2] == [False, False]


def test_a_replaced_worker_does_not_import_torch_again(start, model_root):
    # The master holds what its workers share.
    server = start(model_root(HANDLER)).wait_ready()
    assert server.maps_torch(server.process.pid)
