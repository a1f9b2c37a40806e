"""Steps stay in their episode, cover it evenly, and depend on nothing but key, epoch, episode and draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.shards.errors import ConfigError
from oxcart.train.data.order import Samples
from oxcart.train.data.sampling import Frames, Pairs

VERIFIED = {"hz": 5.0, "verified": True}


def draws(epochs: list[int], episodes: list[int], numbers: list[int]) -> Samples:
    return Samples(*(np.array(one, np.int64) for one in (epochs, episodes, numbers)))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 20), st.integers(0, 2**64 - 1))
def test_a_pair_never_leaves_its_episode(lengths: list[int], offset: int, key: int) -> None:
    sample = Pairs(frames=offset, per_episode=3)
    steps = np.array(lengths)
    counts = sample.counts(steps, offset)
    assert counts.tolist() == [3 if length > offset else 0 for length in lengths]
    episode = np.repeat(np.arange(len(lengths)), counts)
    draw = np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in counts)])
    found = sample.steps(key, Samples(np.zeros_like(episode), episode, draw), steps[episode], offset)
    assert ((found >= 0) & (found + offset < steps[episode])).all()


@pytest.mark.parametrize("sample", [Frames(per_episode="all"), Pairs(frames=3, per_episode="all")])
def test_all_is_every_step_once(sample: Frames | Pairs) -> None:
    offset = sample.offset(None)
    (count,) = sample.counts(np.array([10]), offset).tolist()
    assert count == 10 - offset
    numbers = list(range(count))
    found = sample.steps(1, draws([0] * count, [0] * count, numbers), np.full(count, 10), offset)
    assert found.tolist() == numbers


def test_draws_are_even_and_differ_by_epoch_episode_draw_and_key() -> None:
    count = 100_000
    many = draws([0] * count, list(range(count)), [0] * count)
    found = Frames().steps(7, many, np.full(count, 10), 0)
    assert np.abs(np.bincount(found, minlength=10) / count - 0.1).max() < 0.005
    lengths = np.full(64, 10**6)
    base = [3] * 64, [5] * 64, list(range(64))
    first = Frames(per_episode=64).steps(7, draws(*base), lengths, 0)
    assert len(set(first.tolist())) == 64
    for other in (([4] * 64, *base[1:]), (base[0], [6] * 64, base[2])):
        assert (Frames(per_episode=64).steps(7, draws(*other), lengths, 0) != first).all()
    assert (Frames(per_episode=64).steps(8, draws(*base), lengths, 0) != first).all()


def test_an_episode_gives_the_same_steps_whatever_else_is_asked() -> None:
    together = Frames(per_episode=2).steps(9, draws([0, 0, 1], [4, 8, 4], [1, 0, 1]), np.full(3, 99), 0)
    for i, (epoch, episode, draw) in enumerate([(0, 4, 1), (0, 8, 0), (1, 4, 1)]):
        alone = Frames(per_episode=2).steps(9, draws([epoch], [episode], [draw]), np.full(1, 99), 0)
        assert alone.tolist() == [together[i]]


@pytest.mark.parametrize(("seconds", "steps"), [(0.2, 1), (1, 5), (0.01, 1), (0.5, 2), (1.1, 6)])
def test_seconds_become_steps_of_a_verified_rate(seconds: float, steps: int) -> None:
    assert Pairs(seconds=seconds).offset(VERIFIED) == steps


@pytest.mark.parametrize(
    ("rate", "said"),
    [(None, "is unknown"), ({"hz": 10.0, "verified": False}, "is said to be 10 Hz, unverified")],
)
def test_seconds_need_a_verified_rate(rate: dict | None, said: str) -> None:
    with pytest.raises(ConfigError, match=f"the control rate {said}; give the offset in frames"):
        Pairs(seconds=1).offset(rate)
    assert Pairs(frames=4).offset(rate) == 4


@pytest.mark.parametrize(
    "options",
    [{}, {"frames": 1, "seconds": 1.0}, {"frames": 0}, {"seconds": 0.0}, {"seconds": float("nan")}]
    + [{"frames": 1, "per_episode": value} for value in (0, -1, "some")],
)
def test_impossible_pairs_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=r"pairs|per_episode"):
        Pairs(**options)
