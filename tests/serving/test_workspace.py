from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from byoc_serving.errors import StartError
from byoc_serving.workspace import PREFIX, Workspace, sweep

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def aged(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_directory_of_a_living_server_stays_and_that_of_a_killed_one_goes(tmp_path: Path):
    living, killed = Workspace(), Workspace()
    (killed.path / "code").mkdir()
    os.close(killed._lock)  # what the kernel does when the last process is killed
    aged(living.path, 60)
    aged(killed.path, 60)
    assert sweep() == 1
    assert living.path.is_dir()
    assert not killed.path.exists()
    living.remove()
    assert list(tmp_path.iterdir()) == []


def test_worker_that_outlives_its_master_keeps_the_directory():
    workspace = Workspace()
    inherited = os.dup(workspace._lock)
    os.close(workspace._lock)
    aged(workspace.path, 60)
    assert sweep() == 0
    os.close(inherited)
    assert sweep() == 1


def test_young_directories_links_and_those_without_a_lock_are_left_alone(tmp_path: Path):
    just_made = tmp_path / f"{PREFIX}young"
    just_made.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    recent = tmp_path / f"{PREFIX}recent"
    recent.mkdir()
    aged(recent, 600)
    old = tmp_path / f"{PREFIX}old"
    old.mkdir()
    aged(old, 7200)
    assert sweep() == 1
    assert not old.exists()
    assert just_made.is_dir()
    assert recent.is_dir()
    assert other.is_dir()


def test_no_writable_directory_is_one_clear_line(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StartError, match="TMPDIR"):
        Workspace()


def test_server_whose_working_directory_was_removed_serves(
    start, model_root, serve_command, tmp_path
):
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = ["sh", "-c", 'cd "$1" && rmdir "$1" && exec "$2"', "sh", str(gone), *serve_command]
    server = start(model_root("model_fn = lambda _: lambda x: x"), shell).wait_ready()
    assert server.invoke("[[1]]").json == [[1.0]]
    assert "Traceback" not in server.log
    assert server.terminate() == 0
