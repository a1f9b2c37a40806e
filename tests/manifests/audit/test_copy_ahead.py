"""The probe tells episodes whose future train knows from those that are new to it."""

from __future__ import annotations

import numpy as np
import pytest

from oxcart.manifests.audit.copy_ahead import Probe, check, probe


def noise(episodes: int, seed: int) -> np.ndarray:
    """Thumbnails of episodes in which no frame tells another."""
    return np.random.default_rng(seed).integers(0, 256, (episodes, 4, 24, 24, 3), np.uint8)


def probed(held: np.ndarray) -> tuple[Probe, str]:
    """The probe against train with two equal episodes in each of six environments."""
    place = np.arange(12) // 2
    found = probe(held, noise(6, 0).repeat(2, axis=0), lambda index: place[index][:, None] != place[None], 0)
    return found, check(found).status


def test_the_future_of_an_episode_that_train_has_is_known() -> None:
    found, status = probed(noise(6, 0)[:3])
    assert (found.pairs, found.neighbour, found.ratio, status) == (9, 0, 0, "suspicious")
    assert found.copy == pytest.approx(found.null, rel=0.05)


def test_the_future_of_a_new_episode_is_unknown() -> None:
    found, status = probed(noise(3, 1))
    assert found.ratio == pytest.approx(1, rel=0.05)
    assert found.neighbour == pytest.approx(found.null, rel=0.05)
    assert status == "passed"
