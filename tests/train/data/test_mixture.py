"""After any number of positions every dataset has had its share, to within one sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.train.data.mixture import PERIOD, Schedule, round_to_parts

weights = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12)


@depth(60)
@given(weights=weights)
def test_every_prefix_is_within_one_sample_of_the_weights(weights: list[float]) -> None:
    schedule = Schedule(weights)
    length = 2 * schedule.period
    datasets, own = schedule.at(np.arange(length))
    for i, share in enumerate(schedule.shares):
        counts = np.cumsum(datasets == i)
        assert np.abs(counts - share * np.arange(1, length + 1)).max() < 1 + 1e-6
        assert np.array_equal(own[datasets == i], np.arange(counts[-1]))


@depth(60)
@given(weights=weights)
def test_the_weights_in_force_are_those_given_to_the_part(weights: list[float]) -> None:
    parts = round_to_parts(weights, PERIOD)
    assert min(parts) >= 1
    exact = np.array(weights) / sum(weights)
    found = np.array(parts) / sum(parts)
    assert np.abs(found - exact).max() <= (len(weights) + 1) / PERIOD


@depth(60)
@given(weights=weights, data=st.data())
def test_where_is_the_inverse_of_at(weights: list[float], data: st.DataObject) -> None:
    schedule = Schedule(weights)
    positions = np.array(data.draw(st.lists(st.integers(0, 10**12), min_size=1, max_size=20)))
    datasets, own = schedule.at(positions)
    for position, dataset, place in zip(positions.tolist(), datasets.tolist(), own.tolist(), strict=True):
        assert schedule.where(dataset, np.array([place])).tolist() == [position]


@pytest.mark.parametrize(
    ("kind", "length"),
    [("largest", 400), ("smallest", 40), ("all", 400)],
)
def test_an_epoch_is_one_pass(kind: str, length: int) -> None:
    """300 of three in four, and 10 of one in four."""
    epoch = Schedule([3, 1]).epoch([300, 10], kind)
    assert abs(epoch - length) <= 2


def test_all_waits_for_the_slowest() -> None:
    assert abs(Schedule([3, 1]).epoch([30, 100], "all") - 400) <= 2
    assert abs(Schedule([3, 1]).epoch([30, 100], "smallest") - 40) <= 2


def test_a_single_dataset_is_every_position() -> None:
    schedule = Schedule([0.3])
    assert schedule.epoch([17], "largest") == 17
    assert schedule.at(np.arange(5))[1].tolist() == [0, 1, 2, 3, 4]
