"""Cameras see points where they are, and planes and solids agree with them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from oxcart.compile.sample.solids import Point, above, darken, lathe, limb, look_at, prism, shade, warp

SIZE = 200
EYE, TARGET = (0.3, -0.9, 1.2), (0.5, 0.6, 0.1)
CAMERA = look_at(EYE, TARGET, 0.05, SIZE)
SQUARE = [(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6)]


def blank() -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE))


def drawn(image: Image.Image) -> tuple[float, float, float, float]:
    """Left, upper, right, lower of what is not black."""
    box = image.getbbox()
    assert box
    return box


def test_a_camera_looks_at_its_target() -> None:
    assert CAMERA.at(TARGET)[:2] == pytest.approx((SIZE / 2, SIZE / 2))


def test_far_is_small_right_is_right_and_up_is_up() -> None:
    u, v, scale = CAMERA.at((0.5, 0.5, 0.0))
    assert CAMERA.at((0.6, 0.5, 0.0))[0] > u
    assert CAMERA.at((0.5, 0.5, 0.1))[1] < v
    assert CAMERA.at((0.5, 0.6, 0.0))[2] < scale


def test_from_above_there_is_no_perspective() -> None:
    camera = above(100.0, -1.0, 1.28)
    assert camera.at((-1.0, 1.28, 0.0)) == (0, 0, 100)
    assert camera.at((0.0, 0.28, 0.0)) == pytest.approx((100, 100, 100))
    assert camera.at((0.0, 0.28, 0.5))[1] < 100


@pytest.mark.parametrize("spot", [(0.2, 0.3), (0.5, 0.6), (0.8, 0.9)])
def test_a_warped_image_lies_where_the_camera_sees_its_plane(spot: tuple[float, float]) -> None:
    unit, texture, canvas = 200, Image.new("RGB", (400, 400)), blank()
    x, y = (spot[0] + 0.5) * unit, (1.5 - spot[1]) * unit
    ImageDraw.Draw(texture).ellipse((x - 4, y - 4, x + 4, y + 4), fill="white")
    warp(canvas, texture, CAMERA, (-0.5, 1.5, 0.0), (1 / unit, 0, 0), (0, -1 / unit, 0))
    left, upper, right, lower = drawn(canvas)
    assert ((left + right) / 2, (upper + lower) / 2) == pytest.approx(CAMERA.at((*spot, 0.0))[:2], abs=1.5)


def test_a_prism_fills_its_outline_and_shows_its_top_brightest() -> None:
    image = blank()
    prism(ImageDraw.Draw(image), CAMERA, SQUARE, 0.0, 0.1, (100, 150, 200))
    corners = CAMERA.outline([(x, y, z) for x, y in SQUARE for z in (0.0, 0.1)])
    us, vs = zip(*corners, strict=True)
    assert drawn(image) == pytest.approx((min(us), min(vs), max(us), max(vs)), abs=2)
    u, v, _ = CAMERA.at((0.5, 0.5, 0.1))
    assert image.getpixel((round(u), round(v))) == (100, 150, 200)
    assert np.asarray(image).max() == 200


def test_a_lathe_turns_around_its_axis() -> None:
    image, camera = blank(), above(SIZE, 0.0, 1.0)
    lathe(ImageDraw.Draw(image), camera, 0.5, 0.5, [(0.0, 0.1, (9, 9, 9)), (0.0, 0.1, (200, 100, 50))])
    assert drawn(image) == pytest.approx((80, 80, 121, 121), abs=1)


@pytest.mark.parametrize("end", [(0.8, 0.5, 0.0), (0.5, 0.5, 0.4), (0.2, 0.5, 0.0), (0.2, 0.5, 0.3)])
def test_a_limb_reaches_from_end_to_end(end: Point) -> None:
    start, image = (0.5, 0.5, 0.1), blank()
    limb(ImageDraw.Draw(image), CAMERA, start, end, 0.02, 0.01, (200, 100, 50))
    for share in (0.0, 0.5, 1.0):
        u, v, _ = CAMERA.at((0.5 + share * (end[0] - 0.5), 0.5, 0.1 + share * (end[2] - 0.1)))
        assert image.getpixel((round(u), round(v))) != (0, 0, 0)


def test_shade_stays_a_colour() -> None:
    assert shade((100, 200, 255), 0.5) == (50, 100, 128)
    assert shade((100, 200, 255), 1.5) == (150, 255, 255)


def test_darken_follows_its_mask() -> None:
    image = Image.new("RGB", (4, 4), "white")
    darken(image, Image.new("L", (2, 2), 255), (1, 1))
    pixels = np.asarray(image).sum(axis=2)
    assert (pixels[1:3, 1:3] < 100).all()
    assert (pixels == 765).sum() == 12
