"""The model processes' supervisor, with processes that stand for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from byoc_serving import supervisor
from byoc_serving.running import Running
from byoc_serving.supervisor import Supervisor
from byoc_serving.table import State, Table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.contract(69)
@pytest.mark.parametrize(("state", "finished"), [(State.LOADING, False), (State.DRAINING, True)])
def test_stop_waits_for_a_process_that_ends_but_not_for_one_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State, finished: object
) -> None:
    monkeypatch.setattr(supervisor, "_STOP_S", 600.0)
    table, end = Table(1), tmp_path / "end"

    def spawn(number: int, incarnation: int) -> int:
        assert (number, incarnation) == (0, 0)
        return os.posix_spawn("/bin/sh", ["sh", "-c", f"sleep 3; : > '{end}'"], os.environ)

    models = Supervisor(table, Running(1), 1, 600.0, spawn)
    models.check()
    table.enter(0, state, models.pids[0])
    table.stop()
    models.stop()
    assert models.pids == []
    assert end.exists() == finished


def test_process_that_says_that_it_ends_is_no_crash_and_comes_back_only_after_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table(1)

    def spawn(number: int, incarnation: int) -> int:
        assert (number, incarnation) == (0, 0)
        return os.posix_spawn("/bin/true", ["true"], os.environ)

    models = Supervisor(table, Running(1), 1, 600.0, spawn)
    models.check()
    table.enter(0, State.DRAINING, models.pids[0])
    table.stop()
    os.waitid(os.P_PID, models.pids[0], os.WEXITED | os.WNOWAIT)
    models.check()
    assert models.pids == []
    assert models.due_in_s() > 0
    assert "ended" not in caplog.text
