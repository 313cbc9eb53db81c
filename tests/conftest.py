"""Fixtures for every test: engines that answer, the contract report, a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

#: Variables of a surrounding job or shell that would change what is tested.
PLATFORM_PREFIXES = ("SAGEMAKER_", "SM_", "BYOC_", "AWS_", "TRAINING_JOB_", "MASTER_", "MLFLOW_")
#: Settings of the test run itself.
TEST_SETTINGS = (
    "BYOC_BASE_IMAGE",
    "BYOC_CLIENTS",
    "BYOC_MLFLOW_PYTHON",
    "BYOC_ORACLE_PYTHON",
    "AWS_CA_BUNDLE",
)


def pytest_configure(config: pytest.Config) -> None:
    for name in list(os.environ):
        if name.startswith(PLATFORM_PREFIXES) and name not in TEST_SETTINGS:
            del os.environ[name]


def docker_candidates() -> list[str]:
    found = [shutil.which("docker"), "/usr/bin/docker", "/usr/local/bin/docker"]
    return list(dict.fromkeys(path for path in found if path and Path(path).is_file()))


@pytest.fixture(scope="session")
def docker_cli() -> str:
    """The path of a docker client whose engine answers."""
    candidates = docker_candidates()
    if not candidates:
        pytest.skip("no docker client on this machine")
    reason = ""
    for path in candidates:
        done = subprocess.run(
            [path, "info", "--format", "{{.ServerVersion}}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode == 0 and done.stdout.strip():
            return path
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
    pytest.skip(f"no Docker engine answers: {reason}")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """A folder with the real MNIST, named by the variable MNIST_DIR."""
    folder = os.environ.get("MNIST_DIR")
    if not folder:
        pytest.skip("no real MNIST here; name its folder in MNIST_DIR")
    return Path(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which items of the conformance checklist the passed tests cover."""
    items: defaultdict[int, int] = defaultdict(int)
    for report in terminalreporter.stats.get("passed", []):
        for number in dict(report.user_properties).get("contract", ()):
            items[number] += 1
    if items:
        listed = " ".join(f"{number}({count})" for number, count in sorted(items.items()))
        terminalreporter.write_line(f"contract items with passed tests: {listed}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    numbers = sorted({n for mark in item.iter_markers("contract") for n in mark.args})
    if numbers:
        item.user_properties.append(("contract", numbers))
