"""Frames of a video to RGB, with the same pixels on every machine.

A level of red, green or blue is the sum of a number for the brightness and numbers for the two colours, cut
to 0 to 255. The numbers are those of swscale on x86 (products of 16 bits, rounded down), so pixels are
exactly those that LeRobot, and most programs, read there. Colours of half the resolution are repeated. The
standard that weights the colours is the stream's; where it names none, it is BT.601.

swscale gives other pixels on other processors, and to frames of odd height. As it is several times as fast,
it converts all frames of a kind for which it has shown, on a frame of noise, that its pixels are these.
Formats other than three planes of 8 bits are left to swscale's exact arithmetic.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

Frame = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int16]

SHARED = {
    **dict.fromkeys(("yuv420p", "yuvj420p"), (2, 2)),
    **dict.fromkeys(("yuv422p", "yuvj422p"), (1, 2)),
    **dict.fromkeys(("yuv444p", "yuvj444p"), (1, 1)),
}
"""Pixel format with three planes of 8 bits -> rows and columns of pixels that share one colour."""
WEIGHTS = {
    int(Colorspace.ITU709): (117489, 138438, 13975, 34925),
    int(Colorspace.FCC): (104448, 132798, 24759, 53109),
    int(Colorspace.ITU601): (104597, 132201, 25675, 53279),
    int(Colorspace.SMPTE240M): (117579, 136230, 16907, 35559),
    int(Colorspace.BT2020): (110013, 140363, 12277, 42626),
}
"""Standard -> what red, blue and (twice) green change with the colours, in 65536ths, as swscale has it."""
_BAND = 1 << 15
"""Pixels that are converted at a time by the tables, so that memory stays in the cache."""
_FULL = int(ColorRange.JPEG)
_FAST = Interpolation.BILINEAR | Interpolation.BITEXACT
"""Flags of swscale for the formats in `SHARED`: those of programs that set none."""
_EXACT = Interpolation.BICUBIC | Interpolation.BITEXACT | Interpolation.ACCURATE_RND
"""Flags for other formats (more than 8 bits, grey, RGB): the same integers on every processor."""


class Kind(NamedTuple):
    """What decides how a frame is converted."""

    format: str
    """Pixel format."""
    height: int
    width: int
    standard: int
    """Standard of its colours, one of `WEIGHTS`."""
    full: bool
    """Whether black is 0 and white 255, rather than 16 and 235."""


class Tables(NamedTuple):
    """Numbers [256] of each level, whose sums are levels of red, green and blue."""

    bright: Numbers
    red: Numbers
    """What red changes with the red plane."""
    green_red: Numbers
    green_blue: Numbers
    blue: Numbers


def paint(frame: VideoFrame, out: Frame) -> None:
    """Write a frame as RGB to `out` [H, W, 3] uint8, contiguous and of the frame's size."""
    kind = _kind(frame)
    if kind.format not in SHARED:
        _by_swscale(frame, kind, out, _EXACT)
    elif swscale_agrees(kind):
        _by_swscale(frame, kind, out, _FAST)
    else:
        _by_tables(frame, kind, out)


@cache
def swscale_agrees(kind: Kind) -> bool:
    """Whether swscale, on this machine, gives frames of a kind the pixels that the tables give."""
    random = np.random.default_rng(0)
    noise = VideoFrame(kind.width, kind.height, kind.format)
    for plane in noise.planes:
        plane.update(random.bytes(plane.buffer_size))
    found, expected = (np.empty((kind.height, kind.width, 3), np.uint8) for _ in range(2))
    _by_swscale(noise, kind, found, _FAST)
    _by_tables(noise, kind, expected)
    return np.array_equal(found, expected)


@cache
def tables(standard: int, full: bool) -> Tables:
    """The numbers of a standard and a range of levels."""
    red, blue, green_blue, green_red = WEIGHTS[standard]
    bright, black = 65536 * 255 // 219, 16
    if full:
        bright, black = 65536, 0
        red, blue, green_blue, green_red = (one * 224 // 255 for one in (red, blue, green_blue, green_red))

    def table(zero: int, weight: int) -> Numbers:
        """Levels minus that of zero, in eighths, times a weight in 8192ths."""
        product = (weight + 4) // 8 if weight >= 0 else -((3 - weight) // 8)
        return ((np.arange(256) - zero) * 8 * product >> 16).astype(np.int16)

    return Tables(
        table(black, bright),
        table(128, red),
        table(128, -green_red),
        table(128, -green_blue),
        table(128, blue),
    )


_local = threading.local()


def _kind(frame: VideoFrame) -> Kind:
    standard = int(frame.colorspace)
    if standard not in WEIGHTS:
        standard = int(Colorspace.BT2020 if standard == 10 else Colorspace.ITU601)
    whole = frame.format.is_rgb or frame.format.name.startswith(("yuvj", "gray", "pal"))
    full = whole or int(frame.color_range) == _FULL
    return Kind(frame.format.name, frame.height, frame.width, standard, full)


def _by_swscale(frame: VideoFrame, kind: Kind, out: Frame, flags: Interpolation) -> None:
    kept: dict[Kind, VideoReformatter] = _local.__dict__.setdefault("kept", {})
    found = kept.setdefault(kind, VideoReformatter()).reformat(
        frame,
        format="rgb24",
        src_colorspace=Colorspace(kind.standard),
        src_color_range=ColorRange.JPEG if kind.full else ColorRange.MPEG,
        interpolation=flags,
        threads=1,
    )
    plane = found.planes[0]
    out[:] = np.ndarray(out.shape, np.uint8, memoryview(plane), 0, (plane.line_size, 3, 1))


def _by_tables(frame: VideoFrame, kind: Kind, out: Frame) -> None:
    """Convert a frame by the tables of its kind."""
    numbers, (rows, columns) = tables(kind.standard, kind.full), SHARED[kind.format]
    luma, blue, red = (_levels(plane) for plane in frame.planes)
    band = max(2, _BAND // kind.width // 2 * 2)
    for top in range(0, kind.height, band):
        bright = _look_up(luma[top : top + band], numbers.bright)
        height, width = bright.shape
        blues, reds = (one[top // rows : -(-(top + band) // rows)] for one in (blue, red))
        green = _look_up(reds, numbers.green_red) + _look_up(blues, numbers.green_blue)
        levels = np.empty((3, height, width), np.uint8)
        colours = (_look_up(reds, numbers.red), green, _look_up(blues, numbers.blue))
        for level, colour in zip(levels, colours, strict=True):
            level[:] = np.clip(bright + _repeated(colour, rows, columns)[:height, :width], 0, 255)
        cv2.merge(list(levels), out[top : top + band])


def _look_up(levels: Frame, table: Numbers) -> Numbers:
    return np.asarray(cv2.LUT(levels, table), np.int16)


def _repeated(colour: Numbers, rows: int, columns: int) -> Numbers:
    """Numbers [h, w] of colours, each repeated for the rows and columns that share it."""
    if columns == 2:  # as pairs: `np.repeat` takes ten times as long
        colour = (colour.view(np.uint16) * np.uint32(0x10001)).view(np.int16)
    return np.repeat(colour, rows, axis=0)


def _levels(plane: VideoPlane) -> Frame:
    """The levels [h, w] of a plane, without a copy."""
    return np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), 0, (plane.line_size, 1))
