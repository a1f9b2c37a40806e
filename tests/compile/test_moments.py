"""Merged moments are those of all values together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from oxcart.compile.moments import Moments, merge, moments, summary

FLOATS = st.floats(-1e6, 1e6, width=32)
EPISODES = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.integers(1, 12).flatmap(lambda steps: arrays.arrays(np.float32, (steps, width), elements=FLOATS)),
        min_size=1,
        max_size=6,
    )
)


def close(found: Moments, expected: Moments) -> None:
    """Equal to 1e-9, relative to the size of the values."""
    assert found["count"] == expected["count"]
    assert found["min"] == expected["min"]
    assert found["max"] == expected["max"]
    size = np.maximum(np.abs(expected["min"]), np.abs(expected["max"])) + 1e-30
    np.testing.assert_allclose(found["mean"] / size, expected["mean"] / size, rtol=0, atol=1e-9)
    scale = size**2 * expected["count"]
    np.testing.assert_allclose(found["m2"] / scale, expected["m2"] / scale, rtol=0, atol=1e-9)


@given(EPISODES)
def test_the_summary_is_numpys_over_all_steps(episodes: list[np.ndarray]) -> None:
    values = np.concatenate(episodes).astype(np.float64)
    found = summary(merge(map(moments, episodes)))
    assert found is not None
    assert found["count"] == len(values)
    size = np.abs(values).max() + 1e-30
    np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-9, atol=1e-9 * size)
    np.testing.assert_allclose(found["std"], values.std(axis=0), rtol=1e-6, atol=1e-6 * size)
    assert found["min"] == values.min(axis=0).tolist()
    assert found["max"] == values.max(axis=0).tolist()


@given(EPISODES, st.randoms(use_true_random=False), st.integers(0, 6))
def test_order_and_grouping_change_nothing_beyond_1e_9(episodes: list[np.ndarray], random, cut: int) -> None:
    parts = [moments(episode) for episode in episodes]
    expected = merge(parts)
    assert expected is not None
    shuffled = random.sample(parts, len(parts))
    grouped = [part for part in (merge(parts[:cut]), merge(parts[cut:])) if part is not None]
    for other in (merge(shuffled), merge(reversed(parts)), merge(grouped)):
        assert other is not None
        close(other, expected)


@given(EPISODES)
def test_the_same_order_gives_the_same_bits_also_through_json(episodes: list[np.ndarray]) -> None:
    once = merge([moments(episode) for episode in episodes])
    again = merge(json.loads(json.dumps(moments(episode.copy()))) for episode in episodes)
    assert once == again
    assert json.dumps(once) == json.dumps(again)


def test_one_part_is_itself_and_none_is_none() -> None:
    part = moments(np.array([[1, 2], [3, 6]], np.float32))
    assert part == {"count": 2, "mean": [2.0, 4.0], "m2": [2.0, 8.0], "min": [1.0, 2.0], "max": [3.0, 6.0]}
    assert merge([part]) == part
    assert merge([]) is None
    assert summary(None) is None
    assert summary(part) == {
        "count": 2,
        "mean": [2.0, 4.0],
        "std": [1.0, 2.0],
        "min": [1.0, 2.0],
        "max": [3.0, 6.0],
    }


def test_a_constant_far_from_zero_has_no_deviation() -> None:
    parts = [moments(np.full((n, 1), 16_777_216, np.float32)) for n in (3, 5, 1000)]
    assert summary(merge(parts)) == {
        "count": 1008,
        "mean": [16_777_216.0],
        "std": [0.0],
        "min": [16_777_216.0],
        "max": [16_777_216.0],
    }


def test_many_episodes_of_a_small_deviation_around_a_large_mean_keep_it() -> None:
    """Where sums of squares in float32 lose everything."""
    rng = np.random.default_rng(0)
    episodes = [(1000 + rng.normal(0, 0.01, (50, 2))).astype(np.float32) for _ in range(400)]
    found = summary(merge(map(moments, episodes)))
    assert found is not None
    np.testing.assert_allclose(found["std"], np.concatenate(episodes).astype(float).std(axis=0), rtol=1e-9)


def test_no_steps_have_no_moments_and_change_none() -> None:
    part = moments(np.array([[1, 2]], np.float32))
    assert moments(np.zeros((0, 2), np.float32)) is None
    assert merge([None, part, None]) == merge([part])
    assert merge([None]) is None


def test_minus_zero_is_zero() -> None:
    for order in ([-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]):
        part = moments(np.array(order, np.float32)[:, None])
        assert part is not None
        assert str([part["mean"], part["min"], part["max"]]) == "[[0.0], [0.0], [0.0]]"


def test_merging_does_not_change_the_parts() -> None:
    parts = [moments(np.array([[float(i)]], np.float32)) for i in range(3)]
    before = json.dumps(parts)
    merge(parts)
    assert json.dumps(parts) == before


def test_parts_of_different_widths_cannot_be_merged() -> None:
    parts = [moments(np.zeros((2, width), np.float32)) for width in (1, 2)]
    with pytest.raises(ValueError, match="zip"):
        merge(parts)
