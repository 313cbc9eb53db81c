from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.contract(10, 35, 36)
def test_a_training_that_is_killed_a_hundred_times_ends_with_the_same_weights():
    done = subprocess.run(
        [sys.executable, "benchmarks/chaos/kill_training.py", "--kills", "100", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["different"] == 0
    assert seen["kills"] >= 100
    # The dice have done what they are for.
    assert seen["runs"] > 1
    assert min(seen["SIGTERM"], seen["SIGKILL"], seen["told, saved"], seen["passed over"]) > 0
