"""Backgrounds are one scene if they are alike; measures of agreement do not flatter."""

from __future__ import annotations

import numpy as np
import pytest

from oxcart.compile.scenes import cluster
from oxcart.compile.scenes.cluster import Floats, Thumbs, agreement, alike, group, linked

PLACES, EACH = 5, 7


def drawn(place: int, episode: int) -> Thumbs:
    """A background [24, 24, 3] of blocks that a place has, and of noise that an episode has."""
    blocks = np.random.Generator(np.random.PCG64(place)).integers(0, 200, (8, 8, 3))
    noise = np.random.Generator(np.random.PCG64([place, episode])).integers(0, 40, (24, 24, 3))
    return (blocks.repeat(3, 0).repeat(3, 1) + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def thumbs() -> Thumbs:
    """Every place in turn."""
    return np.stack([drawn(i % PLACES, i // PLACES) for i in range(PLACES * EACH)])


@pytest.mark.parametrize("most", [1000, 9])
def test_episodes_of_a_place_are_one_scene(most: int, thumbs: Thumbs) -> None:
    done: list[int] = []
    labels = group(thumbs, report=done.append, most=most)
    assert labels.tolist() == [i % PLACES for i in range(PLACES * EACH)]
    assert done == sorted(done)
    assert done[-1] == len(thumbs)
    assert np.array_equal(group(thumbs, workers=3, most=most), labels)


def test_the_threshold_decides_how_many_scenes_there_are(thumbs: Thumbs) -> None:
    assert group(thumbs, 0.999).tolist() == list(range(len(thumbs)))
    assert not group(thumbs, 0.01).any()
    assert group(thumbs[:1]).tolist() == [0]


def test_what_comes_late_and_is_like_nothing_is_a_scene_of_its_own(thumbs: Thumbs) -> None:
    strange = np.stack([drawn(99, 0), drawn(98, 0), drawn(99, 1)])
    order = [*range(len(thumbs) - 1), len(thumbs), len(thumbs) + 1, len(thumbs) + 2, len(thumbs) - 1]
    labels = group(np.concatenate([thumbs, strange])[order], most=8)
    assert labels[len(thumbs) - 1 :].tolist() == [PLACES, PLACES + 1, PLACES, PLACES - 1]


def test_the_others_are_compared_a_few_at_a_time(thumbs: Thumbs, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counted(one: Thumbs, other: Thumbs, workers: int = 1) -> Floats:
        counts.append(len(one))
        return alike(one, other, workers)

    whole = group(thumbs, most=8)
    monkeypatch.setattr(cluster, "alike", counted)
    monkeypatch.setattr(cluster, "TOGETHER", 4)
    assert np.array_equal(group(thumbs, most=8), whole)
    assert max(counts) == 8


def test_a_chain_joins_no_two_places() -> None:
    similar = np.full((4, 4), 0.2, np.float32)
    for one in range(3):
        similar[one, one + 1] = similar[one + 1, one] = 0.8
    assert linked(similar, 0.5).tolist() == [0, 0, 1, 1]
    assert linked(similar, 0.3).tolist() == [0, 0, 0, 0]
    assert linked(similar, 0.9).tolist() == [0, 1, 2, 3]


def test_likeness_is_the_same_from_both_sides(thumbs: Thumbs) -> None:
    both = alike(thumbs[:6], thumbs[4:12])
    assert both.shape == (6, 8)
    assert np.allclose(both, alike(thumbs[4:12], thumbs[:6]).T, atol=1e-5)
    assert np.allclose(alike(thumbs, thumbs)[:6, 4:12], both, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "purity", "completeness", "ari"),
    [
        ([0, 0, 1, 1], 1.0, 1.0, 1.0),
        ([1, 1, 0, 0], 1.0, 1.0, 1.0),
        ([0, 1, 2, 3], 1.0, 0.5, 0.0),
        ([0, 0, 0, 0], 0.5, 1.0, 0.0),
        ([0, 1, 0, 1], 0.5, 0.5, -0.5),
        ([0, 0, 1, 2], 1.0, 0.75, 4 / 7),
    ],
)
def test_splitting_and_joining_everything_show(
    labels: list[int], purity: float, completeness: float, ari: float
) -> None:
    found = agreement(np.array(labels), ["a", "a", "b", "b"])
    assert (found["scenes"], found["environments"], found["episodes"]) == (len(set(labels)), 2, 4)
    assert (found["purity"], found["completeness"]) == (purity, completeness)
    assert found["ari"] == pytest.approx(ari)
