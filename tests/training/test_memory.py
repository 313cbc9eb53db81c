from __future__ import annotations

import pytest

from byoc_training import memory

GIB = 2**30


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A control group file system with given files."""

    def make(membership: str, **files: str) -> None:
        (tmp_path / "membership").write_text(membership)
        for path, text in files.items():
            place = tmp_path / path.replace("__", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    return make


def test_version_2_counts_kills_and_knows_the_limit(cgroup):
    cgroup(
        "0::/job\n",
        **{"job__memory.events": "oom 1\noom_kill 3\n", "job__memory.max": f"{GIB}\n"},
    )
    assert memory.state() == memory.MemoryState(3, GIB)


def test_version_2_of_a_container_is_at_the_root(cgroup):
    cgroup("0::/\n", **{"memory.events": "oom_kill 2\n", "memory.max": "max\n"})
    found = memory.state()
    assert found.kills == 2
    assert found.limit_bytes > 0


def test_version_1_counts_kills_and_knows_the_limit(cgroup):
    cgroup(
        "9:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
        **{
            "memory__docker__abc__memory.oom_control": "under_oom 0\noom_kill 5\n",
            "memory__docker__abc__memory.limit_in_bytes": "9223372036854771712",
            "memory__memory.limit_in_bytes": str(GIB // 2),
        },
    )
    assert memory.state() == memory.MemoryState(5, GIB // 2)


def test_machine_without_control_groups_has_its_own_memory(cgroup):
    cgroup("")
    found = memory.state()
    assert found.kills == 0
    assert found.limit.endswith(" GiB")
    assert not found.killed_since(found)
