"""Pixels are those of LeRobot, on every processor."""

from __future__ import annotations

import glob
import hashlib
import platform
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace

from oxcart.shards.video.pixels import SHARED, WEIGHTS, Kind, _by_tables, paint, swscale_agrees

Frame = npt.NDArray[np.uint8]

LUMA = {
    Colorspace.ITU709: (0.2126, 0.0722),
    Colorspace.ITU601: (0.299, 0.114),
    Colorspace.BT2020: (0.2627, 0.0593),
}
"""Standard -> weights of red and blue in the brightness."""


def noise(
    size: tuple[int, int],
    pixels: str = "yuv420p",
    standard: int = Colorspace.ITU601,
    levels: int = ColorRange.MPEG,
) -> av.VideoFrame:
    """A frame whose planes hold all levels at random."""
    random = np.random.default_rng(1)
    frame = av.VideoFrame(size[1], size[0], pixels)
    for plane in frame.planes:
        data = np.frombuffer(random.bytes(plane.buffer_size), np.uint8)
        if pixels.endswith("10le"):
            data = (data.view(np.uint16) & 1023).view(np.uint8)
        plane.update(data)
    frame.colorspace, frame.color_range = standard, levels
    return frame


def painted(frame: av.VideoFrame) -> Frame:
    out = np.zeros((frame.height, frame.width, 3), np.uint8)
    paint(frame, out)
    return out


def planes(frame: av.VideoFrame) -> list[npt.NDArray[np.float64]]:
    """The planes of a frame as numbers, colours repeated to the frame's size."""
    rows, columns = SHARED[frame.format.name]
    found = []
    for plane, (down, across) in zip(frame.planes, ((1, 1), (rows, columns), (rows, columns)), strict=True):
        levels = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        whole = np.repeat(np.repeat(levels, down, axis=0), across, axis=1)
        found.append(whole[: frame.height, : frame.width].astype(float))
    return found


@pytest.mark.parametrize("levels", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("standard", LUMA)
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p"])
def test_colours_are_those_of_the_standard_to_within_the_rounding(
    pixels: str, standard: Colorspace, levels: ColorRange
) -> None:
    frame = noise((34, 46), pixels, standard, levels)
    red, blue = LUMA[standard]
    y, cb, cr = planes(frame)
    y, cb, cr = (
        (y, cb - 128, cr - 128)
        if levels == ColorRange.JPEG
        else (
            (y - 16) * 255 / 219,
            (cb - 128) * 255 / 224,
            (cr - 128) * 255 / 224,
        )
    )
    green = (red * 2 * (1 - red) * cr + blue * 2 * (1 - blue) * cb) / (1 - red - blue)
    expected = np.stack([y + 2 * (1 - red) * cr, y - green, y + 2 * (1 - blue) * cb], -1).clip(0, 255)
    off = np.abs(painted(frame) - expected)
    assert off.max() < 4  # products are rounded down, and swscale's weights to three digits
    assert off.mean() < 1.2


@pytest.mark.parametrize("size", [(64, 64), (50, 66), (66, 51), (224, 224)])
@pytest.mark.parametrize("levels", [ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("standard", WEIGHTS)
def test_pixels_are_those_of_pyav_as_lerobot_calls_it(
    standard: int, levels: ColorRange, size: tuple[int, int]
) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("swscale has other pixels on other processors")
    frame = noise(size, "yuv420p", standard, levels)
    expected = np.asarray(frame.to_image())
    out = np.zeros_like(expected)
    _by_tables(frame, Kind("yuv420p", *size, standard, levels == ColorRange.JPEG), out)
    assert np.array_equal(out, expected)
    assert np.array_equal(painted(frame), expected)


def test_a_frame_that_names_no_standard_is_bt601() -> None:
    frame = noise((64, 64), standard=2, levels=ColorRange.UNSPECIFIED)
    assert np.array_equal(painted(frame), painted(noise((64, 64))))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (33, 47), (47, 32)])
def test_sides_may_be_odd(size: tuple[int, int]) -> None:
    frame = noise(size)
    kind = Kind("yuv420p", *size, int(Colorspace.ITU601), False)
    out = np.zeros((*size, 3), np.uint8)
    _by_tables(frame, kind, out)
    assert np.array_equal(painted(frame), out)


@pytest.mark.parametrize("pixels", ["yuv420p10le", "gray", "gbrp", "rgb24"])
def test_other_formats_become_the_same_picture(pixels: str) -> None:
    shades = np.full((32, 32, 3), (200, 90, 40), np.uint8)
    shades[:16] = (20, 30, 220)
    frame = av.VideoFrame.from_ndarray(shades).reformat(format=pixels, dst_colorspace=Colorspace.ITU601)
    grey = np.repeat(frame.to_ndarray(format="gray")[..., None], 3, -1) if pixels == "gray" else shades
    assert np.abs(painted(frame).astype(int) - grey)[2:14].max() <= 3


KINDS = (((64, 64),), ((66, 50),), ((65, 64),), ((64, 64), "yuv444p"), ((64, 64), "yuv420p10le"))
PROBE = """
import ctypes, hashlib, sys
ctypes.CDLL(sys.argv[1]).av_force_cpu_flags(int(sys.argv[2]))
sys.path[:0] = sys.argv[3:]
from test_pixels import KINDS, Kind, noise, painted, swscale_agrees
print(hashlib.sha256(b"".join(painted(noise(*one)).tobytes() for one in KINDS)).hexdigest())
print(swscale_agrees(Kind("yuv420p", 64, 64, 5, False)))
"""
WITHOUT = {"everything": 0, "AVX2": 0x3FFF, "SSSE3": 0x7F}
"""Extension of the processor that is missing -> the flags of FFmpeg that are left."""


@pytest.mark.parametrize("missing", WITHOUT)
def test_pixels_do_not_depend_on_the_processor(missing: str) -> None:
    libraries = glob.glob(str(Path(av.__file__).parents[1] / "av.libs" / "libavutil*"))
    if not libraries:
        pytest.skip("PyAV is no wheel, so that its libraries are elsewhere")
    folders = [str(Path(__file__).parent)]
    probe = [sys.executable, "-c", PROBE, libraries[0], str(WITHOUT[missing]), *folders]
    digest, agrees = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.split()
    here = b"".join(painted(noise(*one)).tobytes() for one in KINDS)
    assert digest == hashlib.sha256(here).hexdigest()
    if platform.machine() == "x86_64":
        assert agrees == str(missing == "AVX2")
        assert swscale_agrees(Kind("yuv420p", 64, 64, 5, False))
