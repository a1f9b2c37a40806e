"""After any number of positions every dataset has had its share, to within one sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.shards.errors import ConfigError
from oxcart.train.data import Frames, Loader, Mixture
from oxcart.train.data.mixture import PERIOD, Schedule, round_to_parts
from sample_compile import Compiled

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


def test_a_dataset_may_come_twice_in_parts_that_do_not_overlap(whole: Compiled) -> None:
    url, sample = str(whole.out), Frames(per_episode="all")
    every = Loader(url, sample=sample, batch_size=4).streams[0].index.keys.to_pylist()
    mixture = Mixture(datasets=[url, url], parts=[(0, 3), (3, None)], weights=[1, 3])
    loader = Loader(mixture, sample=sample, batch_size=8, threads=1)
    first, rest = (one.index.keys.to_pylist() for one in loader.streams)
    assert (first, rest) == (every[:3], every[3:])
    assert "part=0:3 leaves 3 episodes" in str(loader)
    for _, batch in zip(range(8), loader, strict=False):
        assert abs(sum(key in first for key in batch.key) - 2) <= 1
    again = Loader(mixture, sample=sample, batch_size=8, threads=1)
    again.load_state_dict(loader.state_dict())
    assert next(iter(again)).key == next(iter(loader)).key
    other = Loader(
        Mixture(datasets=[url, url], parts=[(0, 4), (4, None)], weights=[1, 3]), sample=sample, batch_size=8
    )
    with pytest.raises(ConfigError, match="has another order of samples"):
        other.load_state_dict(loader.state_dict())


@pytest.mark.parametrize("parts", [[(0, 3), (2, None)], [(0, None), (5, 6)], [(2, 4), (1, 3)]])
def test_parts_that_overlap_are_refused(whole: Compiled, parts: list[tuple[int, int | None]]) -> None:
    mixture = Mixture(datasets=[str(whole.out)] * 2, parts=parts)
    with pytest.raises(ConfigError, match=r"are one dataset, of order .*, and would be drawn in step"):
        Loader(mixture, sample=Frames(), batch_size=4)


def test_parts_that_are_not_one_per_dataset_or_empty_are_refused(whole: Compiled) -> None:
    with pytest.raises(ConfigError, match=r"mixture\.parts: expected one for each of 1 datasets, got 2"):
        Mixture(datasets=[str(whole.out)], parts=[(0, 1), (1, 2)])
    with pytest.raises(ConfigError, match="part=1000:: leaves none of "):
        Loader(Mixture(datasets=[str(whole.out)], parts=[(1000, None)]), sample=Frames(), batch_size=4)
