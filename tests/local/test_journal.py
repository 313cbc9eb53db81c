"""Log streams: events in the order of their times, whoever writes them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from byoc.local.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

THREADS, LINES = 8, 400


def test_events_of_many_writers_are_in_the_order_of_their_times(tmp_path: Path):
    told: list[tuple[int, str]] = []
    journal = Journal(tmp_path / "stream.log", told.extend)

    def write(number: int) -> None:
        for line in range(LINES):
            journal.line(f"{number} {line}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    times = [when for when, _ in told]
    assert times == sorted(times)
    assert sorted(text for _, text in told) == sorted(
        f"{number} {line}" for number in range(THREADS) for line in range(LINES)
    )


def test_a_clock_that_is_set_back_does_not_turn_the_order_round(tmp_path, monkeypatch):
    told: list[tuple[int, str]] = []
    journal = Journal(tmp_path / "stream.log", told.extend)
    clock = iter([5.0, 4.0, 6.0])
    monkeypatch.setattr("byoc.local.journal.time.time", lambda: next(clock))
    for text in "abc":
        journal.line(text)
    journal.close()
    assert told == [(5000, "a"), (5000, "b"), (6000, "c")]
