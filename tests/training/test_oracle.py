"""Differential test against sagemaker-training: one probe program under both, the same view.

Runs when BYOC_ORACLE_PYTHON names an interpreter with sagemaker-training, as
tests/training/make-oracle makes it. What differs on purpose is listed, each with its reason, in
oracle/differences.py; nothing else may differ. ORACLE_SEED and ORACLE_CONFIGURATIONS choose other
jobs, and more of them.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.training.oracle.configuration import Configuration, View
from tests.training.oracle.differences import DIFFERENCES
from tests.training.oracle.generate import generated, written

SEED = int(os.environ.get("ORACLE_SEED", "4"))
COUNT = int(os.environ.get("ORACLE_CONFIGURATIONS", "300"))
SERVER = Path(__file__).parent / "oracle" / "server.py"
WORKERS = 2


@pytest.fixture(scope="module")
def oracle() -> str:
    python = os.environ.get("BYOC_ORACLE_PYTHON")
    if not python:
        pytest.skip("name an interpreter with sagemaker-training in BYOC_ORACLE_PYTHON")
    return python


@dataclass
class Pair:
    """A job and what the program has seen of it."""

    job: Configuration
    root: Path
    environ: dict[str, str]
    ours: View
    theirs: View


class Toolkit:
    """A server of the toolkit's."""

    def __init__(self, python: str, scratch: Path) -> None:
        self.process = subprocess.Popen(
            [python, str(SERVER), str(scratch)],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def view(self, job: Configuration, root: Path, environ: dict[str, str]) -> View:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps({"root": str(root), "environ": environ, "cpus": job.cpus})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline().strip()
        assert code == "0", (job, code, (root / "theirs.err").read_text())
        return View.read((root / "theirs.out").read_text())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


def run_ours(job: Configuration, environ: dict[str, str]) -> View:
    cpus = ",".join(map(str, job.cpus))
    done = subprocess.run(
        ["/usr/bin/taskset", "-c", cpus, sys.executable, "-m", "byoc_training.main", "train",
         *job.arguments],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (job, done.stderr)
    return View.read(done.stdout)


@pytest.fixture(scope="module")
def pairs(oracle, tmp_path_factory) -> list[Pair]:
    print(f"ORACLE_SEED={SEED} ORACLE_CONFIGURATIONS={COUNT}")
    jobs = [*written(), *generated(SEED, COUNT)]
    scratch = tmp_path_factory.mktemp("oracle")

    def share(worker: int) -> list[Pair]:
        toolkit = Toolkit(oracle, scratch / f"worker-{worker}")
        found = []
        for number in range(worker, len(jobs), WORKERS):
            job, root = jobs[number], scratch / f"job-{number}"
            environ = job.write(root, sys.executable)
            if "sagemaker_program" not in job.hyperparameters:
                environ.setdefault("SAGEMAKER_PROGRAM", job.program)
            theirs = toolkit.view(job, root, environ)
            found.append(Pair(job, root, environ, run_ours(job, environ), theirs))
        toolkit.close()
        return found

    with ThreadPoolExecutor(WORKERS) as pool:
        return [pair for part in pool.map(share, range(WORKERS)) for pair in part]


def compared(ours: View, expected: View) -> list[str]:
    """What is not the same, each in a line."""
    found = []
    if ours.argv != expected.argv:
        found.append(f"argv: {ours.argv} instead of {expected.argv}")
    if ours.cwd != expected.cwd:
        found.append(f"cwd: {ours.cwd} instead of {expected.cwd}")
    for name in sorted(ours.variables | expected.variables):
        pair = ours.variables.get(name), expected.variables.get(name)
        if pair[0] != pair[1]:
            found.append(f"{name!r}: {pair[0]!r} instead of {pair[1]!r}")
    return found


@pytest.mark.contract(16, 17, 18, 19, 20, 22, 24, 25, 26, 27)
@pytest.mark.slow
def test_the_program_sees_the_same_but_for_the_listed_differences(pairs):
    """All arguments and all variables, SM_* and others, to the letter."""
    met: Counter[str] = Counter()
    wrong: list[str] = []
    for pair in pairs:
        expected = copy.deepcopy(pair.theirs)
        for difference in DIFFERENCES:
            before = copy.deepcopy(expected)
            difference.apply(pair.job, expected)
            met[difference.name] += expected != before
        wrong += [f"{pair.job.label}: {line}" for line in compared(pair.ours, expected)]
    assert not wrong, f"{len(wrong)} differences that are not on the list:\n" + "\n".join(
        wrong[:20]
    )
    assert len(pairs) >= COUNT
    never = [difference.name for difference in DIFFERENCES if not met[difference.name]]
    assert not never, f"differences on the list that no job has: {never}"


@pytest.mark.slow
def test_a_fork_of_the_toolkit_sees_what_a_start_of_its_own_sees(pairs, oracle):
    """The server that saves the toolkit's start-up time changes nothing."""
    for pair in pairs[:: max(1, len(pairs) // 5)]:
        cpus = ",".join(map(str, pair.job.cpus))
        done = subprocess.run(
            ["/usr/bin/taskset", "-c", cpus, oracle, "-m", "sagemaker_training.cli.train"],
            env=pair.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        alone = View.read(done.stdout)
        # `python -m` puts the working directory first; a script its own.
        for view in (alone, pair.theirs):
            view.variables.pop("PYTHONPATH")
        assert compared(alone, pair.theirs) == [], pair.job.label


@pytest.mark.slow
def test_program_runs_under_a_runner_of_the_toolkit(job, oracle):
    """The module that MPI and SMDDP jobs go through, with the runner that needs no cluster."""
    job.hyperparameters(epochs="2", sagemaker_program='"train.py"')
    job.config("inputdataconfig", {})
    job.config("resourceconfig", {"current_host": "localhost", "hosts": ["localhost"]})
    job.probe()
    training = Path(__file__).parents[2] / "training"
    done = subprocess.run(
        [oracle, "-m", "byoc_training.toolkit", "Process"],
        env=job.variables(SAGEMAKER_BASE_DIR=str(job.root), PYTHONPATH=str(training)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(one for one in done.stdout.splitlines() if one.startswith('{"argv"'))
    assert json.loads(line)["argv"] == ["--epochs", "2"]
