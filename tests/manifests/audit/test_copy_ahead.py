"""The probe tells episodes whose future train knows from those that are new to it."""

from __future__ import annotations

import numpy as np
import pytest

from oxcart.manifests.audit import copy_ahead
from oxcart.manifests.audit.copy_ahead import KNOWN, MOST, Probe, check, probe
from oxcart.manifests.audit.episodes import UNKNOWN


def noise(episodes: int, seed: int) -> np.ndarray:
    """Thumbnails of episodes in which no frame tells another."""
    return np.random.default_rng(seed).integers(0, 256, (episodes, 4, 24, 24, 3), np.uint8)


def probed(held: np.ndarray) -> tuple[Probe, str]:
    """The probe against train with two equal episodes in each of six environments."""
    found = probe(held, noise(6, 0).repeat(2, axis=0), np.arange(12) // 2, 0)
    return found, check(found).status


def test_the_future_of_an_episode_that_train_has_is_known() -> None:
    found, status = probed(noise(6, 0)[:3])
    assert (found.pairs, found.neighbour, status) == (9, 0, "suspicious")
    assert found.ratio == pytest.approx(0, abs=1e-3)
    assert found.copy == pytest.approx(found.null, rel=0.05)


def test_the_future_of_a_new_episode_is_unknown() -> None:
    found, status = probed(noise(3, 1))
    assert found.ratio == pytest.approx(1, rel=0.05)
    assert found.neighbour == pytest.approx(found.null, rel=0.05)
    assert status == "passed"


def test_a_few_episodes_of_known_environment_make_the_null_among_many_others() -> None:
    place = np.full(2 * MOST, UNKNOWN)
    place[[5, 90, 311]] = 0, 1, 2
    train = noise(3, 0)[np.searchsorted([90, 311], np.arange(len(place)), side="right")]
    for seed in range(5):
        found = probe(noise(3, 1), train, place, seed)
        assert found.null > 1000, "episodes of unknown environment predict nothing"
        assert found.ratio == pytest.approx(1, rel=0.05)


def test_one_still_scene_in_every_environment_tells_nothing() -> None:
    scene = noise(1, 0)[:, :1].repeat(4, axis=1)
    found = probe(scene.repeat(2, axis=0), scene.repeat(6, axis=0), np.arange(6) // 2, 0)
    assert (found.neighbour, found.null, found.ratio) == (0, 0, 1)
    assert check(found).status == "passed"


def test_train_is_compared_in_blocks_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    held = noise(6, 0)[::-1]
    whole, _ = probed(held)
    monkeypatch.setattr(copy_ahead, "BLOCK", 5)
    assert probed(held)[0] == whole
    assert (whole.neighbour, whole.pairs) == (0, 18)


def test_the_ratio_is_suspicious_below_its_limit() -> None:
    ratios = (KNOWN - 0.01, KNOWN)
    probes = [Probe(pairs=9, neighbour=1.0, copy=1.0, null=1.0, ratio=ratio) for ratio in ratios]
    assert [check(one).status for one in probes] == ["suspicious", "passed"]
