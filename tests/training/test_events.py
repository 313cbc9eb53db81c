"""Event files, read by TensorBoard itself."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
    RawEventFileLoader,
)
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from byoc_training.events import EventFile


def read(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder, tag: str) -> list[tuple[int, Any]]:
    return [(one.step, one.value) for one in read(folder).Scalars(tag)]


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 2**31, 2**62])
def test_a_scalar_comes_back(tmp_path, step):
    EventFile(tmp_path / "run").scalars({"train/loss": 0.5, "größe": -1e-30}, step, 1700000000.25)
    (one,) = read(tmp_path / "run").Scalars("train/loss")
    assert (one.step, one.value, one.wall_time) == (step, 0.5, 1700000000.25)
    assert scalars(tmp_path / "run", "größe") == [(step, pytest.approx(-1e-30))]


def test_what_is_no_finite_float32_comes_back_as_it_can(tmp_path):
    file = EventFile(tmp_path)
    for step, value in enumerate((math.nan, math.inf, -math.inf, 1e300, -1e300, 2**63)):
        file.scalars({"x": value}, step, 1.0)
    values = [value for _, value in scalars(tmp_path, "x")]
    assert math.isnan(values[0])
    assert values[1:5] == [math.inf, -math.inf, math.inf, -math.inf]
    assert values[5] == 2.0**63


def test_the_messages_are_those_of_the_package(tmp_path):
    """Not only what the reader needs: the whole of each record is understood."""
    EventFile(tmp_path, first_step=3).scalars({"a": 1.0, "b": 2.0}, 3, 9.0)
    (path,) = tmp_path.iterdir()
    events = [Event.FromString(data) for data in RawEventFileLoader(str(path)).Load()]
    assert [event.WhichOneof("what") for event in events] == [
        "file_version",
        "session_log",
        "summary",
    ]
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (3, 1)
    assert [(one.tag, one.simple_value) for one in events[2].summary.value] == [
        ("a", 1.0),
        ("b", 2.0),
    ]


def test_steps_that_come_again_count_in_their_later_form(tmp_path):
    before = EventFile(tmp_path, first_step=0)
    for step in range(5):
        before.scalars({"loss": 10.0 + step}, step, 1.0)
    before.close()
    after = EventFile(tmp_path, first_step=3)
    for step in (3, 4, 5):
        after.scalars({"loss": 20.0 + step}, step, 2.0)
    assert scalars(tmp_path, "loss") == [
        (0, 10.0),
        (1, 11.0),
        (2, 12.0),
        (3, 23.0),
        (4, 24.0),
        (5, 25.0),
    ]


def test_a_long_series_has_the_checksums_that_the_reader_wants(tmp_path):
    file = EventFile(tmp_path)
    for step in range(500):
        file.scalars({"loss": step / 7}, step, float(step))
    (path,) = tmp_path.iterdir()
    assert len(list(RawEventFileLoader(str(path)).Load())) == 501
    # One bit, and the reader stops there.
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", content, 0)
    content[12 + length + 4 + 12 + 3] ^= 1
    path.write_bytes(content)
    assert len(list(RawEventFileLoader(str(path)).Load())) == 1
