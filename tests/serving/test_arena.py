from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from byoc_serving.arena import Arena

if TYPE_CHECKING:
    from byoc_serving.arena import Region

SIZE = 64 * 1024


def region() -> Region:
    return Arena(2, 2, SIZE, SIZE).requests(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9000), st.booleans()), max_size=60))
def test_blocks_never_overlap_and_everything_comes_back(steps):
    arena = region()
    held: list[tuple[int, int]] = []
    for size, free_one in steps:
        if free_one and held:
            arena.give(*held.pop(len(held) // 2))
        offset = arena.take(size)
        if offset is not None:
            held.append((offset, size))
        ordered = sorted(held)
        for (start, length), (following, _) in itertools.pairwise(ordered):
            assert start + length <= following
        assert all(start >= SIZE and start + length <= 2 * SIZE for start, length in held)
    for block in held:
        arena.give(*block)
    assert arena.used == 0
    assert arena.take(SIZE) is not None


def test_full_region_has_no_block_until_one_is_freed():
    arena = region()
    first = arena.take(SIZE // 2)
    assert first is not None
    assert arena.take(SIZE // 2) is not None
    assert arena.take(1) is None
    arena.give(first, SIZE // 2)
    assert arena.take(1) == first


def test_each_front_and_pair_has_a_region_of_its_own():
    arena = Arena(2, 3, SIZE, 2 * SIZE)
    regions = [arena.requests(seat) for seat in range(2)]
    regions += [arena.answers(seat, peer) for seat in range(2) for peer in range(3)]
    starts = sorted((r.take(1) or 0, r.size) for r in regions)
    for (start, size), (following, _) in itertools.pairwise(starts):
        assert start + size == following
    assert starts[-1][0] + starts[-1][1] == len(arena.memory)


def test_pages_of_a_large_block_go_back_to_the_system():
    large = 16 * 1024 * 1024
    arena = Arena(1, 1, large, SIZE)
    blocks = arena.requests(0)
    offset = blocks.take(large)
    assert offset == 0
    arena.view[:large] = b"\1" * large
    blocks.give(offset, large)
    assert bytes(arena.view[4096:8192]) == bytes(4096)
