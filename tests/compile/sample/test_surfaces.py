"""Every theme gives a worktop and a wall, in its colours and like no other's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageColor

import oxcart.compile.sample.surfaces as surfaces
from oxcart.compile.sample.surfaces import (
    FAR,
    HIGH,
    LEFT,
    NEAR,
    RIGHT,
    THEMES,
    draw_top,
    draw_wall,
    random_theme,
)

UNIT = 60


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", THEMES)
def test_sizes(name: str) -> None:
    wide = round((RIGHT - LEFT) * UNIT)
    assert draw_top(THEMES[name], rng(), UNIT).size == (wide, round((FAR - NEAR) * UNIT))
    assert draw_wall(THEMES[name], rng(), UNIT).size == (wide, round(HIGH * UNIT))


def test_all_look_different() -> None:
    for draw in (draw_top, draw_wall):
        images = [np.asarray(draw(theme, rng(), UNIT)).astype(float) for theme in THEMES.values()]
        assert min(np.abs(a - b).mean() for a, b in itertools.combinations(images, 2)) > 5


def test_the_table_spells_patterns_and_furniture_that_are_drawn() -> None:
    bare = THEMES["toykitchen1"]._replace(furniture="nothing")
    for theme in THEMES.values():
        assert theme.wall in surfaces._WALLS
        assert theme.top in surfaces._TOPS
        for colour in (theme.wall_dark, theme.wall_light, theme.top_dark, theme.top_light, theme.tint):
            ImageColor.getrgb(colour)
        for piece in theme.furniture.split(","):
            furnished = bare._replace(furniture=piece)
            changed = [
                draw(furnished, rng(), UNIT) != draw(bare, rng(), UNIT) for draw in (draw_top, draw_wall)
            ]
            assert any(changed) == (piece not in ("lamp", "microwave", "boxes")), piece


@pytest.mark.parametrize("kind", sorted({*surfaces._WALLS, *surfaces._TOPS}))
def test_a_texture_stays_between_its_two_colours(kind: str) -> None:
    image = surfaces._texture(kind, "#202020", "#d0d0d0", rng(), 2.0, 1.0, UNIT)
    assert (image.mode, image.size) == ("RGB", (2 * UNIT, UNIT))
    pixels = np.asarray(image)
    assert 0x20 <= pixels.min() < pixels.max() <= 0xD0


def test_furniture_is_spread_along_the_wall() -> None:
    theme = THEMES["toykitchen1"]
    assert theme.placed() == [("shelf", 0.12), ("stove", 0.88)]
    assert theme._replace(furniture="monitor").placed() == [("monitor", 0.5)]


def test_random_themes_vary_and_can_be_drawn() -> None:
    generator = rng()
    themes = [random_theme(generator) for _ in range(40)]
    assert len(set(themes)) == 40
    assert {theme.wall for theme in themes} == set(surfaces._WALLS)
    assert {theme.top for theme in themes} == set(surfaces._TOPS)
    for theme in themes[:8]:
        assert isinstance(draw_top(theme, rng(), 20), Image.Image)
        assert isinstance(draw_wall(theme, rng(), 20), Image.Image)
