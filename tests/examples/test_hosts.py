"""The example on two hosts: what the platform merges into one archive does not collide."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.examples.conftest import EXAMPLE
from tests.training.test_hosts import cluster  # noqa: F401 - the fixture

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 240.0


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.contract(34, 51)
@pytest.mark.slow
def test_two_hosts_write_no_file_of_the_same_name(cluster, few_digits):  # noqa: F811 - the fixture
    """output.tar.gz and model.tar.gz have the files of all hosts: one name, one file."""
    made = cluster(2, "", epochs="1")
    for job in made.jobs.values():
        shutil.copytree(EXAMPLE, job.root / "code", dirs_exist_ok=True)
        shutil.copytree(few_digits, job.root / "input/data/training")
    results = made.finish(made.start(), SECONDS)
    assert [result.code for result in results.values()] == [0, 0], results
    first, second = (job.root for job in made.jobs.values())
    assert names(first / "output/data") & names(second / "output/data") == set()
    assert "metrics.jsonl" in names(first / "output/data")
    assert names(first / "model") == {"model.pth", "code/inference.py", "code/model.py"}
    assert names(second / "model") == set()
    # Metrics are read from every host's log: each is there once.
    assert results["127.0.0.1"].stdout.count("epoch=1;") == 1
    assert "epoch=1;" not in results["127.0.0.2"].stdout
