"""Likeness of backgrounds: one place under other light, clutter and lenses, and places apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from oxcart.manifests.audit.features import GRID
from oxcart.manifests.audit.likeness import detail, likeness, plains

SIDE = 192
APART = 1.0
"""Below the likeness of one place here, and above that of two."""


def room(seed: int) -> np.ndarray:
    """A wall and a table of textures of several scales [192, 192, 3]."""
    rng = np.random.default_rng(seed)
    scales = [(cells, rng.integers(0, 256, (cells, cells, 3), np.uint8)) for cells in (3, 8, 24)]
    layers = [np.asarray(Image.fromarray(noise).resize((SIDE, SIDE)), np.float32) for _, noise in scales]
    return np.stack(layers).mean(0).clip(0, 255)


def thumb(image: np.ndarray) -> np.ndarray:
    whole = Image.fromarray(image.clip(0, 255).astype(np.uint8))
    return np.asarray(whole.resize((GRID, GRID), Image.Resampling.BOX))[None]


def alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return likeness(one, plains(other))


def shifted(image: np.ndarray, by: int) -> np.ndarray:
    return np.roll(image, (by, by), (0, 1))[by:, by:]


@pytest.mark.parametrize("seed", range(5))
def test_one_place_is_alike_whatever_its_light_clutter_and_lens(seed: int) -> None:
    place = room(seed)
    cluttered = place.copy()
    cluttered[120:150, 40:75] = (200, 30, 30)
    across = np.linspace(0.6, 1.2, SIDE)[None, :, None]
    others = {
        "itself": place,
        "dimmer": 0.6 * place + 10,
        "lit from one side": place * across,
        "warmer": place * (1.15, 1.0, 0.8),
        "with another thing on the table": cluttered,
        "shifted": shifted(place, 8),
        "cropped": place[12:180, 12:180],
    }
    for what, other in others.items():
        assert alike(thumb(place), thumb(other))[0, 0] > APART, what
        assert alike(thumb(other), thumb(place))[0, 0] > APART, what


def test_places_apart_are_not_alike() -> None:
    rooms = np.concatenate([thumb(room(seed)) for seed in range(12)])
    found = alike(rooms, rooms)
    own = np.eye(12, dtype=bool)
    assert found[own].min() > 4
    assert found[~own].max() < APART


def test_two_rooms_of_one_colour_scheme_differ_in_detail() -> None:
    one, other = room(1), room(2)
    scheme = np.asarray(Image.fromarray(room(3).astype(np.uint8)).resize((3, 3)).resize((SIDE, SIDE)), float)
    apart = alike(thumb(scheme + 0.3 * (one - 128)), thumb(scheme + 0.3 * (other - 128)))[0, 0]
    same = alike(thumb(scheme + 0.3 * (one - 128)), thumb(0.7 * (scheme + 0.3 * (one - 128))))[0, 0]
    assert same > 4
    assert apart < APART


def test_what_is_flat_resembles_nothing() -> None:
    black, grey = (thumb(np.full((SIDE, SIDE, 3), level)) for level in (0, 128))
    assert np.abs(detail(grey)).max() == pytest.approx(0, abs=1e-4)
    for one, other in ((black, grey), (grey, grey), (black, thumb(room(0)))):
        assert alike(one, other)[0, 0] == pytest.approx(0, abs=1e-3)


def test_blocks_change_nothing() -> None:
    rooms = np.concatenate([thumb(room(seed)) for seed in range(6)])
    whole = alike(rooms, rooms)
    apart = np.concatenate([alike(rooms[i : i + 1], rooms) for i in range(6)])
    assert np.allclose(whole, apart, atol=1e-4)
