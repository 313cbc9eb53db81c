"""A stop signal in the first moments of `train`, before it has handlers."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Sends itself SIGTERM as soon as `start` has done its work, before anything else is imported.
EARLY = """
import os, signal, sys
from byoc_training import start
mask = signal.pthread_sigmask
def told(how, signals):
    before = mask(how, signals)
    if how == signal.SIG_BLOCK:
        assert not any(name.startswith("byoc_training.m") for name in sys.modules)
        os.kill(os.getpid(), signal.SIGTERM)
    return before
signal.pthread_sigmask = told
sys.argv = ["train"]
sys.exit(start.main())
"""
PID_1 = ("unshare", "--pid", "--fork", "--mount-proc")


@pytest.mark.contract(10, 11)
@pytest.mark.parametrize("prefix", [(), PID_1], ids=["any process", "PID 1"])
def test_a_stop_before_there_are_handlers_is_not_lost(job, prefix):
    if prefix and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make a process namespace here")
    job.program("print('never')")
    done = subprocess.run(
        [*prefix, sys.executable, "-c", EARLY],
        env=job.variables(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    assert "never" not in done.stdout
    assert "Traceback" not in done.stderr
    assert job.failure.read_text().startswith("stopped by SIGTERM")


def test_the_program_has_no_signal_blocked(job):
    job.program(
        "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []) or 'none blocked')"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from byoc_training import start; raise SystemExit(start.main())"],
        env=job.variables(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "none blocked\n"), done.stderr
