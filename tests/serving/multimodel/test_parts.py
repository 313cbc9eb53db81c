"""The parts of the multi-model server that need no process: pages, paths, frames, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byoc_serving.errors import InsufficientMemoryError, MethodNotAllowedError, RequestError
from byoc_serving.multimodel import memory
from byoc_serving.multimodel.location import folder_of
from byoc_serving.multimodel.paging import page
from byoc_serving.multimodel.routes import Action, Route, is_ours, route
from byoc_serving.multimodel.wire import Frame, Kind, Parser, head

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.contract(84)
@given(
    before=st.sets(NAMES, max_size=30),
    after=st.sets(NAMES, max_size=30),
    limit=st.integers(1, 7),
)
def test_pages_show_what_stays_exactly_once_whatever_comes_and_goes(before, after, limit):
    shown: list[str] = []
    token: str | None = ""
    names = before
    while token is not None:
        part, token = page(names, f"limit={limit}&next_page_token={token}".encode())
        assert len(part) <= limit
        shown += part
        names = after
    assert len(shown) == len(set(shown))
    assert before & after <= set(shown) <= before | after


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=a", "limit=", "limit=%C2%B2", "limit=99999999999"]
)
def test_limit_that_is_none_is_refused(query):
    with pytest.raises(RequestError, match="whole number"):
        page(["a"], query.encode())


@given(st.text(max_size=20))
def test_token_that_is_none_of_ours_is_refused_or_ours(token):
    try:
        shown, following = page(["a", "b"], f"next_page_token={token}".encode())
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 - any text may be a token by chance
    else:
        assert following is None
        assert set(shown) <= {"a", "b"}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", b"/models", Route(Action.LIST)),
        ("POST", b"/models/", Route(Action.LOAD)),
        ("GET", b"/models/a", Route(Action.DESCRIBE, "a")),
        ("DELETE", b"/models/a%2Fb", Route(Action.UNLOAD, "a/b")),
        ("POST", b"/models/a/invoke", Route(Action.INVOKE, "a")),
        ("POST", b"/models/a/b/invoke", Route(Action.INVOKE, "a/b")),
        ("GET", b"/models/x%2Finvoke", Route(Action.DESCRIBE, "x/invoke")),
        ("POST", b"/models/x%2Finvoke/invoke", Route(Action.INVOKE, "x/invoke")),
        ("GET", b"/models/%25%32%35", Route(Action.DESCRIBE, "%25")),
        ("GET", b"/models/%zz", Route(Action.DESCRIBE, "%zz")),
        ("GET", b"/models/%FF", Route(Action.DESCRIBE, "\udcff")),
    ],
)
def test_paths_name_actions_and_models(method, path, expected):
    assert route(method, path) == expected


def test_other_methods_are_refused_with_those_allowed():
    with pytest.raises(MethodNotAllowedError) as caught:
        route("PATCH", b"/models/a")
    assert caught.value.headers == (("Allow", "GET, DELETE"),)
    assert not is_ours("/modelsx")
    assert is_ours("/models/x")


@settings(max_examples=50)
@given(
    frames=st.lists(st.tuples(st.integers(0, 1 << 60), st.binary(), st.binary(max_size=300))),
    cut=st.integers(1, 64),
)
def test_frames_survive_any_cut_of_the_stream(frames, cut):
    stream = b"".join(
        head(Kind.ANSWER, number, meta, len(body)) + body for number, meta, body in frames
    )
    parser = Parser()
    found = [
        frame
        for start in range(0, len(stream), cut)
        for frame in parser.feed(stream[start : start + cut])
    ]
    assert found == [Frame(Kind.ANSWER, *frame) for frame in frames]


@pytest.mark.contract(83)
def test_load_is_refused_when_it_would_not_fit_beside_the_others():
    free = 1000 * MIB
    budget = memory.Budget(None, None, lambda: free)
    budget.reserve("first", 100 * MIB)
    budget.reserve("second", 100 * MIB)
    # 2 x (3 x 100 + 24) are reserved, and 64 are kept back.
    with pytest.raises(InsufficientMemoryError, match="324 MiB"):
        budget.reserve("third", 100 * MIB)
    budget.settle("first", 120 * MIB)
    budget.reserve("third", 100 * MIB)
    budget.free("second")
    budget.free("third")
    budget.reserve("fourth", 200 * MIB)


@pytest.mark.contract(83)
def test_alone_a_model_is_tried_unless_its_bare_weights_do_not_fit():
    budget = memory.Budget(None, None, lambda: 1000 * MIB)
    with pytest.raises(InsufficientMemoryError):
        budget.reserve("huge", 950 * MIB)
    budget.reserve("large", 900 * MIB)


def test_limits_of_models_and_of_their_memory_hold():
    budget = memory.Budget(500 * MIB, 3, lambda: 1 << 40)
    budget.reserve("a", 100 * MIB)
    with pytest.raises(InsufficientMemoryError, match="BYOC_MODELS_MEMORY_BYTES"):
        budget.reserve("b", 100 * MIB)
    budget.settle("a", 110 * MIB)
    budget.reserve("b", 100 * MIB)
    budget.settle("b", 10 * MIB)
    budget.reserve("c", 1)
    with pytest.raises(InsufficientMemoryError, match="BYOC_MAX_MODELS"):
        budget.reserve("d", 1)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_available_memory_is_the_tightest_limit_without_reclaimable_cache(tmp_path):
    write(tmp_path / "proc/meminfo", "MemTotal: 8192000 kB\nMemAvailable: 4096000 kB\n")
    assert memory.available_bytes(tmp_path) == 4_096_000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(group / "memory.max", "max\n")
    write(group / "memory.current", str(900 * MIB))
    assert memory.available_bytes(tmp_path) == 4_096_000 * 1024
    write(group / "memory.max", str(1000 * MIB))
    write(group / "memory.stat", f"inactive_file {200 * MIB}\nactive_file {100 * MIB}\n")
    assert memory.available_bytes(tmp_path) == 350 * MIB
    write(group / "memory.events", "low 0\noom 3\noom_kill 2\n")
    assert memory.oom_kills(tmp_path) == 2


def test_available_memory_knows_version_1_groups(tmp_path):
    write(tmp_path / "proc/self/cgroup", "4:memory:/docker/abc\n")
    group = tmp_path / "sys/fs/cgroup/memory"
    write(group / "memory.limit_in_bytes", str(500 * MIB))
    write(group / "memory.usage_in_bytes", str(450 * MIB))
    write(group / "memory.stat", f"total_inactive_file {100 * MIB}\n")
    write(group / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert memory.available_bytes(tmp_path) == 150 * MIB
    assert memory.oom_kills(tmp_path) == 1


def test_usage_counts_private_pages_and_shares(tmp_path):
    rollup = "00-ff ---p 00 00:00 0 [rollup]\nRss: 90 kB\nPss: 50 kB\nPrivate_Clean: 3 kB\n"
    write(tmp_path / "proc/7/smaps_rollup", rollup + "Private_Dirty: 20 kB\nSwap: 1 kB\n")
    assert memory.usage("7", tmp_path) == memory.Usage(24 * 1024, 50 * 1024)
    write(tmp_path / "proc/8/statm", "100 30 10 1 0 5 0")
    assert memory.usage("8", tmp_path) == memory.Usage(20 * 4096, 20 * 4096)
    assert memory.usage().private_bytes > MIB


def test_urls_mean_the_containers_paths_wherever_the_root_is(tmp_path):
    (tmp_path / "models/a/model").mkdir(parents=True)
    folder = (tmp_path / "models/a/model").resolve()
    assert folder_of("/opt/ml/models/a/model", tmp_path) == folder
    assert folder_of(str(folder), tmp_path) == folder
    with pytest.raises(RequestError, match="not below"):
        folder_of("/opt/ml/models/../../etc", tmp_path)
