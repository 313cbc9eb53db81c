"""What no server of this engine can beat: the engine alone, and importing torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.serving import catalog, model

if TYPE_CHECKING:
    from benchmarks.serving.trial import Plan


def engine_rate(sample: model.Sample, kind: str, plan: Plan) -> float:
    """Answers a second of the engine in one process a core, 32 requests at once in all.

    Raises:
        RuntimeError: it did not run.
    """
    folder = plan.cache / "run" / "engine-loop"
    model.install(sample, folder / "ml")
    bodies = folder / kind
    bodies.mkdir(parents=True, exist_ok=True)
    ours = catalog.OURS[0]
    for number in range(model.IMAGES):
        body, headers = sample.body(ours, kind, number)
        (bodies / f"body-{number}").write_bytes(body)
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("BYOC_", "SAGEMAKER_"))},
        "BYOC_ROOT": str(folder / "ml"),
        "PYTHONPATH": f"{model.ROOT}:{model.ROOT / 'serving'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    at_once = max(1, 32 // plan.workers)
    command = [sys.executable, "-m", "benchmarks.serving.engine_loop", str(bodies)]
    command += [headers["Content-Type"], str(at_once), str(plan.seconds)]
    processes = [
        subprocess.Popen(
            command,
            env=environ,
            cwd=model.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(plan.workers)
    ]
    rate = 0.0
    for process in processes:
        output, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the engine loop failed: {errors.strip()[-300:]}")
        seen = json.loads(output.splitlines()[-1])
        if seen["errors"]:
            raise RuntimeError(f"the engine loop had {seen['errors']} errors")
        rate += seen["answers"] / seen["seconds"]
    return rate


def import_torch_s(tries: int = 3) -> float:
    """Seconds of ``python -c "import torch"`` in this environment, the best of some tries."""
    best = float("inf")
    for _ in range(tries):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        best = min(best, time.monotonic() - began)
    return best


def known(setting: str) -> bool:
    """Whether ``serve`` knows a variable: it refuses a bad value of one that it does."""
    from byoc_serving.errors import SettingsError  # noqa: PLC0415 - not needed for peers alone
    from byoc_serving.settings import Settings  # noqa: PLC0415

    try:
        Settings.from_environ({setting: "not a value"})
    except SettingsError:
        return True
    return False
