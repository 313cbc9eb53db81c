"""Which packages a main loads: seconds of start-up, and a CUDA context, hang on it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "boto3", "botocore", "PIL", "sklearn", "matplotlib", "docker")


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("byoc_training.main", ("byoc", "byoc_serving", "flask", "gunicorn")),
        ("byoc_serving.main", ("byoc", "byoc_training")),
        ("byoc_serving.gunicorn_conf", ("byoc", "byoc_training")),
        ("byoc.main", ("byoc_serving", "byoc_training", "flask", "gunicorn")),
    ],
)
def test_importing_a_main_loads_nothing_heavy_and_no_other_room(module, foreign):
    code = f"import {module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({*HEAVY, *foreign})
