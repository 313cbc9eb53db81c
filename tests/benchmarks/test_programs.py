"""The benchmark programs run from start to end, on our own server alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 400


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all programs: the model is made once."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_table_of_our_own_server_has_its_figures(cache: Path) -> None:
    done = run(
        *("benchmarks.serving", "--quick", "--workers", "1"),
        *("--peers", "byoc,http-only", "--cache", str(cache)),
    )
    assert done.returncode == 0, done.stderr
    assert "| **byoc** |" in done.stdout
    content = json.loads((cache / "serving.json").read_text())
    ours, http = content["rows"]
    assert ours["failure"] is None
    assert http["failure"] is None
    (figures,) = ours["rounds"]
    assert figures["loads"]["json-32"]["rate"] > 0
    assert figures["loads"]["json-32"]["errors"] == 0
    assert figures["pss_mib"] > 50
    assert content["bounds"]["engine"]["json"] > 0


def test_the_soak_counts_no_errors_and_weighs_each_process(cache: Path) -> None:
    done = run(
        *("benchmarks.soak", "--seconds", "3", "--maximum-seconds", "1", "--share", "0.3"),
        *("--workers", "1", "--cache", str(cache)),
    )
    content = json.loads((cache / "soak.json").read_text())
    assert set(content["whole"]["outcomes"]) == {"200"}, done.stdout + done.stderr
    assert content["growth_mib"]


def test_the_overload_reports_each_step(cache: Path) -> None:
    done = run(
        *("benchmarks.overload", "--seconds", "2", "--maximum-seconds", "1", "--times", "0.5"),
        *("--workers", "1", "--cache", str(cache)),
    )
    content = json.loads((cache / "overload.json").read_text())
    (step,) = content["steps"]
    assert step["lost"] == 0, done.stdout + done.stderr
    assert step["ping"]["pings"] > 10
    assert step["ping"]["bad"] == 0


def test_a_crowd_is_there_and_harms_nobody(cache: Path) -> None:
    done = run(
        *("benchmarks.crowded", "--seconds", "3", "--maximum-seconds", "1", "--share", "0.1"),
        *("--connections", "500", "--workers", "1", "--cache", str(cache)),
    )
    content = json.loads((cache / "crowded.json").read_text())
    assert set(content["ordinary"]["outcomes"]) == {"200"}, done.stdout + done.stderr
    assert content["ping"]["bad"] == 0
    assert content["crowd"]["there"] >= 500
    assert content["crowd"]["cut_off"]["half-closed"] > 0
    assert set(content["rss_before_mib"]) <= set(content["rss_during_mib"])


def test_a_stop_under_load_loses_nothing(cache: Path) -> None:
    done = run(
        *("benchmarks.restarts", "stop", "--times", "1", "--connections", "4"),
        *("--workers", "1", "--cache", str(cache)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((cache / "restarts-stop.json").read_text())
    assert content["rounds"][0]["answered"] > 0
