from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from byoc.local.host_containers import LABEL

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.contract(1, 39, 60)
def test_the_demo_tells_the_same_story_with_the_two_images(
    docker_cli, training_image, inference_image, tmp_path
):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "examples.demo", "--engine", "docker", "--epochs", "2"),
            *("--seed", "5", "--output", str(tmp_path / "out")),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "Engine: containers of sagemaker-byoc-training and sagemaker-byoc-inference" in done.stdout
    )
    assert re.search(r"^Most likely answer: \d$", done.stdout, re.MULTILINE)
    assert "| byoc: runner docker: image sagemaker-byoc-training:latest" in done.stdout
    assert "| byoc: runner docker: image sagemaker-byoc-inference:latest" in done.stdout
    left = subprocess.run(
        [
            docker_cli,
            "ps",
            "--all",
            "--quiet",
            "--filter",
            f"label={LABEL}={tmp_path}/out/sagemaker",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert left == ""
