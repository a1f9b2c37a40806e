"""Groups take turns, each pass of a group is all of its samples once, and any position is found alone."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.train.data.balance import BalancedOrder, permuted

episodes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=25).filter(
    lambda rows: any(count for _, count in rows)
)


def order_of(rows: list[tuple[int, int]], key: int = 1) -> BalancedOrder:
    groups, counts = np.array(rows).T
    return BalancedOrder(key, counts.astype(np.int64), groups.astype(np.int64))


@depth(100)
@given(rows=episodes, key=st.integers(0, 2**64 - 1))
def test_in_every_prefix_no_group_is_more_than_one_sample_ahead(
    rows: list[tuple[int, int]], key: int
) -> None:
    order = order_of(rows, key)
    found = order.at(np.arange(60))
    groups = np.array([group for group, _ in rows])[found.episode]
    there = {group for group, count in rows if count}
    assert order.groups == len(there)
    for end in range(1, 61):
        counts = Counter(groups[:end].tolist())
        assert max(counts.values()) - min(counts[group] for group in there) <= 1


@depth(100)
@given(rows=episodes, key=st.integers(0, 2**64 - 1))
def test_a_pass_of_a_group_is_every_sample_once(rows: list[tuple[int, int]], key: int) -> None:
    order = order_of(rows, key)
    sizes = Counter[int]()
    for group, count in rows:
        sizes[group] += count
    positions = np.arange(3 * order.groups * max(sizes.values()))
    found = order.at(positions)
    groups = np.array([group for group, _ in rows])[found.episode]
    for group, size in sizes.items():
        mine = groups == group
        for number in range(3 if size else 0):
            pairs = list(zip(found.episode[mine], found.draw[mine], strict=True))[
                number * size : (number + 1) * size
            ]
            assert set(found.epoch[mine][number * size : (number + 1) * size].tolist()) == {number}
            expected = [(i, d) for i, (g, count) in enumerate(rows) if g == group for d in range(count)]
            assert sorted(pairs) == expected
    assert len(order) == sum(sizes.values())


@depth(60)
@given(rows=episodes, positions=st.lists(st.integers(0, 10**12), min_size=1, max_size=10))
def test_a_position_gives_the_same_sample_whatever_else_is_asked(
    rows: list[tuple[int, int]], positions: list[int]
) -> None:
    together = order_of(rows).at(np.array(positions))
    for i, position in enumerate(positions):
        alone = order_of(rows).at(np.array([position]))
        assert [one.tolist() for one in alone] == [[one[i]] for one in together]


@depth(100)
@given(size=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
def test_numbers_are_permuted(size: int, key: int) -> None:
    numbers = np.arange(size)
    keys = np.full(size, key, np.uint64)
    assert sorted(permuted(numbers, np.full(size, size), keys).tolist()) == numbers.tolist()


def test_permutations_look_random() -> None:
    """Each number goes everywhere equally often; neighbours part."""
    size, tries = 10, 20_000
    numbers = np.tile(np.arange(size), tries)
    keys = np.repeat(np.arange(tries).astype(np.uint64), size)
    found = permuted(numbers, np.full(len(numbers), size), keys)
    table = np.zeros((size, size))
    np.add.at(table, (numbers, found), 1)
    assert np.abs(table / tries - 1 / size).max() < 0.012  # of 5.7 standard deviations
    together = np.abs(np.diff(found.reshape(tries, size), axis=1)) == 1
    assert together.mean() == pytest.approx(2 / size, abs=0.01)


def test_large_groups_are_reached_at_once() -> None:
    counts = np.array([10**11, 1])
    found = BalancedOrder(3, counts, np.array([0, 1])).at(np.array([0, 1, 2 * 10**11 - 1]))
    assert sorted(found.episode[:2].tolist()) == [0, 1]
    assert (found.draw < counts[found.episode]).all()


def test_no_round_of_a_million_groups_is_laid_out() -> None:
    order = BalancedOrder(1, np.ones(10**6, np.int64), np.arange(10**6))
    positions = np.arange(20) * 10**6 + 7  # each of another round
    tracemalloc.start()
    try:
        found = order.at(positions).episode
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(np.unique(found)) > 15
    assert most < 1e6


def test_rounds_differ_and_so_do_seeds() -> None:
    rows = [(group, 1) for group in range(8)]
    first = order_of(rows).at(np.arange(32)).episode.reshape(4, 8)
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert (order_of(rows, key=2).at(np.arange(32)).episode != first.reshape(-1)).any()
