"""Frames as they are decoded to RGB: their colours, sizes and turns, and the same on every processor."""

from __future__ import annotations

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from oxcart.compile.images import Resize
from oxcart.compile.sample.videos import draw_scene
from oxcart.compile.sources.videos.pixels import LONGER, LUMA, Painter, Planes, _halved, _matrix, _twice

Rgb = npt.NDArray[np.uint8]


def drawn(height: int, width: int, name: str = "pixels") -> Rgb:
    return next(draw_scene(name, 1, (height, width)))


def frame_of(original: Rgb, pixels: str = "yuv420p", standard: int = Colorspace.ITU601) -> VideoFrame:
    frame = av.VideoFrame.from_ndarray(original, "rgb24").reformat(
        format=pixels, dst_colorspace=standard, dst_color_range=ColorRange.MPEG
    )
    frame.colorspace, frame.color_range = standard, ColorRange.MPEG
    return frame


def painted(frame: VideoFrame, resize: Resize | None = None, rotation: int = 0) -> Rgb:
    resize = resize or Resize()
    shown = (frame.height, frame.width)[:: -1 if rotation % 180 else 1]
    out = np.zeros((*resize.output_size(*shown), 3), np.uint8)
    Painter().paint(frame, rotation, resize, out)
    return out


def apart(one: Rgb, other: Rgb) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("standard", [Colorspace.ITU601, Colorspace.ITU709])
def test_a_frame_has_the_colours_that_were_encoded(pixels: str, standard: int) -> None:
    original = drawn(96, 128)
    found = painted(frame_of(original, pixels, standard))
    assert apart(found, original) < 4  # colours have half the resolution, so edges differ
    assert np.median(np.abs(found.astype(np.int16) - original)) <= 1


@pytest.mark.parametrize("pixels", ["rgb24", "bgra", "gbrp", "gray", "yuvj420p"])
def test_a_frame_of_another_kind_has_its_colours_too(pixels: str) -> None:
    original = drawn(96, 128)
    if pixels == "gray":
        original = cv2.cvtColor(cv2.cvtColor(original, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    frame = av.VideoFrame.from_ndarray(original, "rgb24").reformat(format=pixels)
    found = painted(frame)
    assert apart(found, original) < 4
    assert np.median(np.abs(found.astype(np.int16) - original)) <= 1


def test_colours_are_the_standards_to_a_level() -> None:
    levels = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    for standard, (red, blue) in LUMA.items():
        for full in (False, True):
            light, cb, cr = levels.astype(np.float64)
            y, c = (light, 1.0) if full else ((light - 16) * 255 / 219, 255 / 224)
            r, b = y + 2 * (1 - red) * c * (cr - 128), y + 2 * (1 - blue) * c * (cb - 128)
            g = (y - red * r - blue * b) / (1 - red - blue)
            found = Planes(*levels, standard, full).rgb()
            assert np.abs(np.clip(np.stack([r, g, b], 2), 0, 255) - found).max() <= 1.05


@pytest.mark.parametrize("standard", LUMA)
@pytest.mark.parametrize("full", [False, True])
def test_no_sum_of_colours_depends_on_how_a_processor_rounds(standard: str, full: bool) -> None:
    """Every sum is an odd number of 1024ths, in fixed point of 10 bits as in floating point."""
    matrix = _matrix(standard, full).astype(np.float64) * 1024
    assert np.array_equal(matrix, np.round(matrix))
    assert not np.any(matrix[:, :3] % 2)
    assert np.all(matrix[:, 3] % 2 == 1)
    assert np.abs(matrix[:, :3]).max() < 1 << 15


def test_halving_is_a_mean_in_integers() -> None:
    plane = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (75, 131), dtype=np.uint8)
    a, b, c, d = (plane[i:74:2, j:130:2].astype(np.int64) for i in (0, 1) for j in (0, 1))
    assert np.array_equal(_halved(plane), (a + b + c + d + 2) >> 2)


def test_doubling_repeats_every_pixel() -> None:
    plane = np.arange(15, dtype=np.uint8).reshape(3, 5)
    assert np.array_equal(_twice(plane), plane.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(("size", "fit"), [((64, 64), "crop"), ((64, 64), "stretch"), ((48, 100), "crop")])
def test_a_resize_is_nearly_that_of_pillow(size: tuple[int, int], fit: str) -> None:
    original = drawn(240, 320)
    image = Image.fromarray(original)
    if fit == "crop":
        height, width = min(240, 320 * size[0] // size[1]), min(320, 240 * size[1] // size[0])
        left, top = (320 - width) // 2, (240 - height) // 2
        image = image.crop((left, top, left + width, top + height))
    expected = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    assert apart(painted(frame_of(original), Resize(size=size, fit=fit)), expected) < 4


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_frame_is_that_frame_turned(rotation: int) -> None:
    frame = frame_of(drawn(64, 96))
    assert np.array_equal(painted(frame, rotation=rotation), np.rot90(painted(frame), rotation // 90))
    resize = Resize(size=(40, 24), fit="crop")
    turned = painted(frame, resize, rotation)
    assert turned.shape == (40, 24, 3)
    if rotation % 180:
        upright = painted(frame, Resize(size=(24, 40), fit="crop"))
        assert np.array_equal(turned, np.rot90(upright, rotation // 90))


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le", "rgb24"])
@pytest.mark.parametrize("size", [(1, 2), (33, 47), (96, 128), (241, 427), (8, 1200)])
def test_a_small_image_shows_the_same(pixels: str, size: tuple[int, int]) -> None:
    original = drawn(max(16, size[0]), max(16, size[1]))[: size[0], : size[1]]
    frame = frame_of(original, pixels) if pixels != "rgb24" else av.VideoFrame.from_ndarray(original, "rgb24")
    small = Painter().small(frame)
    rgb, grey = small.rgb(), small.grey()
    assert rgb.shape[:2] == grey.shape == small.bright.shape == small.blue.shape
    assert max(grey.shape) <= LONGER or min(grey.shape) == 1
    assert apart(grey, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)) < 2
    if min(grey.shape) > 8:
        assert apart(rgb, np.asarray(Image.fromarray(original).resize(grey.shape[::-1]))) < 9
