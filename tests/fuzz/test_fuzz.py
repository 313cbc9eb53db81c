"""Every seed keeps the promises, and a short coverage-guided search finds none that does not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
#: For each target.
SECONDS = os.environ.get("FUZZ_SECONDS", "5")


@pytest.mark.parametrize(
    ("function", "seed"), [(target[0], seed) for target in TARGETS.values() for seed in target[1]]
)
def test_seeds_keep_the_promises(function: Any, seed: bytes) -> None:
    function(seed)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris has wheels for Python 3.11 to 3.13 on x86-64 alone",
)
@pytest.mark.parametrize("name", TARGETS)
def test_a_search_finds_nothing_that_breaks_a_promise(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", "--targets", name, "--seconds", SECONDS),
            *("--folder", str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=float(SECONDS) + 120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: 0 inputs" not in done.stdout
