"""From the start of ``train`` to the program's first line, beside sagemaker-training."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving.goals import Goal

GOAL_S = 0.25
PROGRAM = "import time; print('first line', time.time())\n"


def measure(oracle: str | None, times: int) -> tuple[list[Goal], dict[str, Any]]:
    """Both in turn, so many times; the toolkit where an interpreter with it is named."""
    ours: list[float] = []
    theirs: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _lay_out(root)
        script = str(root / "code" / "program.py")
        for _ in range(times):
            bare.append(_once([sys.executable, script], {}))
            ours.append(_once([str(Path(sys.executable).parent / "train")], _variables(root)))
            if oracle:
                variables = _variables(root) | {"SM_STUDIO_LOCAL_MODE": "true"}
                theirs.append(_once([oracle, "-m", "sagemaker_training.cli.train"], variables))
    mine = statistics.median(ours)
    seen = f"{mine:.3f} s (of which python itself {statistics.median(bare):.3f} s)"
    if theirs:
        other = statistics.median(theirs)
        seen += f"; sagemaker-training {other:.3f} s: {other / mine:.1f} x"
    goal = Goal("train started to the program's first line", seen, f"{GOAL_S} s", mine <= GOAL_S)
    return [goal], {"ours_s": ours, "sagemaker_training_s": theirs, "python_s": bare}


def _lay_out(root: Path) -> None:
    config = root / "input" / "config"
    for path in (config, root / "model", root / "output" / "data", root / "code"):
        path.mkdir(parents=True)
    (root / "code" / "program.py").write_text(PROGRAM)
    (config / "hyperparameters.json").write_text('{"epochs": "1"}')
    (config / "inputdataconfig.json").write_text("{}")
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    (config / "resourceconfig.json").write_text(json.dumps(hosts))


def _variables(root: Path) -> dict[str, str]:
    return {
        "BYOC_ROOT": str(root),
        "SAGEMAKER_BASE_DIR": str(root),
        "SAGEMAKER_PROGRAM": "program.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": str(root / "code"),
    }


def _once(command: list[str], variables: dict[str, str]) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SM_", "SAGEMAKER_"))}
    started = time.time()
    done = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if "first line " in line:
            return float(line.rsplit(" ", 1)[1]) - started
    raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
