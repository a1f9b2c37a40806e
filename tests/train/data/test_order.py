"""The order is a bijection an epoch, mixes within lanes and blocks alone, and depends on its key."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.train.data.order import Order, derive, splitmix64


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Orders of up to 60 episodes in up to 8 shards."""
    counts = draw(st.lists(st.integers(0, 7), min_size=1, max_size=60).filter(any))
    shards = sorted(draw(st.lists(st.integers(0, 7), min_size=len(counts), max_size=len(counts))))
    return Order(
        draw(st.integers(0, 2**64 - 1)),
        np.array(counts),
        np.array(shards),
        lanes=draw(st.sampled_from([1, 2, 4, 16])),
        block=draw(st.integers(1, 40)),
    )


def everything(order: Order, epoch: int = 0) -> list[tuple[int, int]]:
    found = order.samples(epoch * len(order), (epoch + 1) * len(order))
    assert set(found.epoch.tolist()) == {epoch}
    return list(zip(found.episode.tolist(), found.draw.tolist(), strict=True))


@given(order=orders(), epoch=st.integers(0, 10**6))
def test_every_sample_comes_exactly_once_an_epoch(order: Order, epoch: int) -> None:
    expected = [(e, d) for e, count in enumerate(order.counts.tolist()) for d in range(count)]
    assert sorted(everything(order, epoch)) == expected


@given(order=orders(), data=st.data())
def test_any_positions_are_those_of_the_whole_sequence(order: Order, data: st.DataObject) -> None:
    whole = everything(order, 0) + everything(order, 1) + everything(order, 2)
    positions = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=30))
    found = order.at(np.array(positions, np.int64))
    assert [whole[p] for p in positions] == list(
        zip(found.episode.tolist(), found.draw.tolist(), strict=True)
    )
    assert found.epoch.tolist() == [p // len(order) for p in positions]


@given(order=orders())
def test_a_lane_is_a_run_of_the_layout_and_a_block_a_run_of_the_lane(order: Order) -> None:
    """Samples with one lane's positions, sorted back within their blocks, are consecutive."""
    total = len(order)
    inorder = Order(order.key, order.counts, order.shards, lanes=1, block=1)
    place = {sample: i for i, sample in enumerate(everything(inorder))}
    samples = [place[sample] for sample in everything(order)]
    for lane in range(order.lanes):
        mine = samples[lane :: order.lanes]
        length = total // order.lanes + (lane < total % order.lanes)
        assert len(mine) == length
        begin = min(mine, default=0)
        ahead = lane * order.block // order.lanes
        bounds = [0, *range(order.block - ahead, length, order.block), length]
        for start, stop in pairwise(bounds):
            assert sorted(mine[start:stop]) == list(range(begin + start, begin + stop))


def test_shards_stay_together_and_change_places_every_epoch() -> None:
    counts, shards = np.full(60, 2), np.repeat(np.arange(20), 3)
    order = Order(7, counts, shards, lanes=1, block=1)
    first = [[shards[e] for e, _ in everything(order, epoch)] for epoch in range(4)]
    for sequence in first:
        runs = [s for i, s in enumerate(sequence) if i == 0 or s != sequence[i - 1]]
        assert sorted(runs) == list(range(20))
    assert len({tuple(sequence) for sequence in first}) == 4


def test_keys_lanes_and_blocks_make_other_orders_and_nothing_else_does() -> None:
    counts, shards = np.full(100, 3), np.repeat(np.arange(10), 10)
    base = everything(Order(1, counts, shards, lanes=4, block=16))
    assert base == everything(Order(1, counts.copy(), shards.copy(), lanes=4, block=16))
    for other in (
        Order(2, counts, shards, lanes=4, block=16),
        Order(1, counts, shards, lanes=8, block=16),
        Order(1, counts, shards, lanes=4, block=32),
    ):
        assert everything(other) != base


def test_the_order_of_today_is_that_of_tomorrow() -> None:
    found = Order(42, np.full(6, 2), np.array([0, 0, 1, 1, 2, 2]), lanes=2, block=3).samples(0, 24)
    assert list(zip(found.episode.tolist(), found.draw.tolist(), strict=True)) == PINNED


PINNED = [
    (4, 0),
    (0, 0),
    (3, 0),
    (0, 1),
    (3, 1),
    (1, 0),
    (5, 0),
    (2, 0),
    (4, 1),
    (1, 1),
    (5, 1),
    (2, 1),
    (5, 1),
    (2, 0),
    (5, 0),
    (2, 1),
    (0, 0),
    (3, 0),
    (0, 1),
    (3, 1),
    (1, 0),
    (4, 0),
    (1, 1),
    (4, 1),
]


def test_splitmix64_is_that_of_its_authors() -> None:
    state, golden = 1234567, 0x9E3779B97F4A7C15
    states = np.array([(state + i * golden) % 2**64 for i in range(3)], np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_derived_keys_differ() -> None:
    keys = {derive(5, a, b) for a in range(30) for b in range(30)}
    assert len(keys) == 900
    assert derive(5, 1, 2) != derive(5, 2, 1)


@pytest.mark.parametrize("block", [1, 512])
def test_a_block_mixes_what_is_in_it(block: int) -> None:
    order = Order(3, np.ones(4096, np.int64), np.arange(4096) // 256, lanes=1, block=block)
    plain = Order(3, np.ones(4096, np.int64), np.arange(4096) // 256, lanes=1, block=1)
    moved = np.mean(np.array(everything(order)) != np.array(everything(plain)))
    assert moved == 0 if block == 1 else moved > 0.4


def test_a_block_beyond_everything_costs_no_more_than_everything() -> None:
    counts, shards = np.full(10, 3), np.arange(10) // 2
    vast, enough = (Order(1, counts, shards, lanes=1, block=block) for block in (1 << 40, 30))
    assert everything(vast) == everything(enough)
    assert sorted(everything(Order(1, counts, shards, lanes=16, block=1 << 40))) == sorted(everything(vast))
