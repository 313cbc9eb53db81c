from __future__ import annotations

import os

from byoc_serving.health import ping
from byoc_serving.table import State, Table


def test_other_processes_see_what_one_writes():
    table = Table(2)
    pid = os.fork()
    if not pid:
        table.enter(1, State.READY, 4321)
        table.phase(1, "wärming")
        table.fail("ä cause")
        os._exit(0)
    os.waitpid(pid, 0)
    slot = table.slot(1)
    assert (slot.state, slot.pid, slot.phase) == (State.READY, 4321, "wärming")
    assert table.failure == "ä cause"
    assert table.slot(0).state is State.EMPTY


def test_first_failure_is_kept_and_long_ones_are_cut():
    table = Table(1)
    table.fail("é" * 9000)
    table.fail("second")
    assert table.failure is not None
    assert table.failure.startswith("ééé")
    assert len(table.failure.encode()) < 4096


def test_ping_latches_only_when_every_worker_is_ready_and_the_porter_has_left():
    table = Table(2)
    table.enter(0, State.READY, 1)
    assert not table.latch()
    table.enter(1, State.READY, 2)
    assert table.latch()
    assert not table.latch()
    assert ping(table).status == 503
    table.porter_listens = False
    assert ping(table).status == 200
    table.enter(0, State.LOADING, 3)
    assert ping(table).status == 200
    table.enter(1, State.EMPTY, 0)
    assert ping(table).status == 503


def test_ping_names_the_failure_and_the_stop():
    table = Table(1)
    table.stop()
    assert b"stopping" in ping(table).body
    table.fail("no weights\nhere")
    assert b"no weights here" in ping(table).body


def test_free_slot_is_the_first_empty_one():
    table = Table(3)
    table.enter(0, State.LOADING, 1)
    assert table.free_slot() == 1
