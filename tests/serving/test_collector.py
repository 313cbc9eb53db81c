from __future__ import annotations

import subprocess
import sys

import pytest

from byoc_serving.collector import LATE_S, QUIET_S

# In a process of its own: what is tested is the interpreter's own setting.
PROGRAM = """
import gc, weakref
from byoc_serving.collector import Collector
{before}
collector = Collector(100.0)
class Node: pass
def garbage():
    node = Node(); node.self = node
    gc.collect()  # as old as it gets
    return weakref.ref(node)
seen = garbage()
gc.collect(1)
print(collector.beat(100.0 + {age}, lambda: {quiet}), seen() is None, gc.get_threshold()[2] > 10**6)
"""


def run(age: float, *, quiet: bool, before: str = "") -> list[str]:
    program = PROGRAM.format(age=age, quiet=quiet, before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("age", "quiet", "collects"),
    [
        (QUIET_S - 1, True, False),
        (QUIET_S, True, True),
        (QUIET_S, False, False),
        (LATE_S - 1, False, False),
        (LATE_S, False, True),
    ],
)
def test_old_garbage_goes_in_a_quiet_moment_or_when_it_is_late(age, quiet, collects):
    assert run(age, quiet=quiet) == [str(collects), str(collects), "True"]


@pytest.mark.parametrize("before", ["gc.disable()", "gc.set_threshold(700, 10, 0)"])
def test_who_has_turned_collection_off_keeps_it_off(before):
    assert run(LATE_S, quiet=True, before=before) == ["False", "False", "False"]
