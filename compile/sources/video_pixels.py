"""Decoded frames to pictures: resized first, plane by plane, and only then converted to RGB.

A frame of a video is three planes, brightness and two of colour, which have a quarter of the pixels.
Resizing them costs half of resizing RGB, and the conversion of colours is then of the small picture alone;
at 256 pixels of a side both together take a third of what swscale's exact conversion and a resize took.
Colours keep half the resolution of the brightness, as in the video itself and as in a JPEG. Resizes are
Pillow's, conversions sums of integers, so the same frame gives the same picture on every processor. What is
not made of such planes (more than 8 bits, RGB) is converted to them by swscale, with the flags that promise
the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from oxcart.compile.images import Frame, Resize

EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""Of swscale: integer arithmetic that is the same on every processor."""
SMALL, PLANES = EXACT | Interpolation.BILINEAR, EXACT | Interpolation.BICUBIC
LONGER = 96
"""Pixels of the longer side of a small picture."""

PLANAR = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
"""Formats of three planes of 8 bits."""
LUMA = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
"""Standard -> weights of red and blue in the brightness."""
HD = 720
"""Lines from which on a frame that does not say is taken to be of BT.709."""
_FULL = int(ColorRange.JPEG)
_PARTS = 32

Ints = npt.NDArray[np.int16]


class Painter:
    """Makes pictures of frames, one after another."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def paint(self, frame: VideoFrame, rotation: int, resize: Resize) -> Frame:
        """The picture [H, W, 3] uint8 RGB of a frame, turned and of the size that is wanted."""
        turned = rotation % 180 != 0
        shown = (frame.width, frame.height) if turned else (frame.height, frame.width)
        height, width = resize.output_size(*shown)[:: -1 if turned else 1]
        standard, full = _standard(frame), _is_full(frame)
        planes = self._planes(frame)
        if (height, width) != (frame.height, frame.width):
            box = (
                _middle(frame, height / width) if resize.fit == "crop" else (0, 0, frame.width, frame.height)
            )
            planes = [_cut(one, box, frame) for one in planes]
        bright, blue, red = planes
        half = (height + 1) // 2, (width + 1) // 2
        sized = _resized(bright, height, width), _resized(blue, *half), _resized(red, *half)
        picture = _rgb(*sized, standard, full)
        return np.ascontiguousarray(np.rot90(picture, rotation // 90)) if rotation else picture

    def small(self, frame: VideoFrame) -> Frame:
        """A small picture [h, w, 3] uint8 BGR of a frame, not turned, made by swscale at once."""
        longer = max(frame.height, frame.width, LONGER)
        height, width = (max(8, side * LONGER // longer) for side in (frame.height, frame.width))
        made = self._reformatter.reformat(
            frame, width, height, "bgr24", interpolation=SMALL, dst_color_range=ColorRange.JPEG
        )
        plane = made.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        return rows[:, : width * 3].reshape(height, width, 3)

    def _planes(self, frame: VideoFrame) -> list[Frame]:
        """Brightness and two colours, each [h, w] uint8."""
        if frame.format.name not in PLANAR:
            frame = self._reformatter.reformat(frame, format="yuv444p", interpolation=PLANES)
        return [
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[
                :, : plane.width
            ]
            for plane in frame.planes
        ]


def _standard(frame: VideoFrame) -> str:
    """By which weights its colours are to be read: as it says, else as is usual for its size."""
    known: dict[int, str] = {
        int(Colorspace.ITU709): "709",
        int(Colorspace.ITU601): "601",
        int(Colorspace.SMPTE170M): "601",
        int(Colorspace.BT2020): "2020",
    }
    usual = "709" if min(frame.height, frame.width) >= HD else "601"
    return known.get(int(frame.colorspace), usual)


def _is_full(frame: VideoFrame) -> bool:
    """Whether black is 0 and white 255, and not 16 and 235."""
    return int(frame.color_range) == _FULL or frame.format.name.startswith(
        ("yuvj", "rgb", "bgr", "gbr", "pal")
    )


def _middle(frame: VideoFrame, shape: float) -> tuple[int, int, int, int]:
    """The largest box of a shape (height / width) in the middle, on even pixels where it is inside."""
    height = min(frame.height, max(1, round(frame.width * shape)))
    width = min(frame.width, max(1, round(frame.height / shape)))
    top, left = (frame.height - height) // 4 * 2, (frame.width - width) // 4 * 2
    return left, top, left + width, top + height


def _cut(plane: Frame, box: tuple[int, int, int, int], frame: VideoFrame) -> Frame:
    """The part of a plane, which may have fewer pixels than the frame, that a box of the frame covers."""
    across = 1 if plane.shape[1] == frame.width else 2
    down = 1 if plane.shape[0] == frame.height else 2
    left, top, right, bottom = box
    return plane[top // down : -(-bottom // down), left // across : -(-right // across)]


def _resized(plane: Frame, height: int, width: int) -> Frame:
    plane = np.ascontiguousarray(plane)
    if plane.shape == (height, width):
        return plane
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


@lru_cache(maxsize=8)
def _tables(standard: str, full: bool) -> tuple[Ints, ...]:
    """What each level of brightness and of the two colours adds to red, green and blue, in 32nds."""
    red, blue = LUMA[standard]
    green = 1 - red - blue
    scale, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    levels = np.arange(256) - 128.0

    def table(values: npt.NDArray[Any]) -> Ints:
        found: Ints = np.round(values * _PARTS).astype(np.int16)
        return found

    return (
        table((np.arange(256) - (0 if full else 16)) * scale),
        table(2 * (1 - red) * chroma * levels),
        table(-2 * (1 - red) * red / green * chroma * levels),
        table(-2 * (1 - blue) * blue / green * chroma * levels),
        table(2 * (1 - blue) * chroma * levels),
    )


def _rgb(bright: Frame, blue: Frame, red: Frame, standard: str, full: bool) -> Frame:
    """A picture [H, W, 3] of its brightness [H, W] and two colours [H / 2, W / 2], rounded up."""
    light, to_red, red_to_green, blue_to_green, to_blue = _tables(standard, full)
    height, width = bright.shape
    level = _look_up(bright, light)
    green = _look_up(red, red_to_green) + _look_up(blue, blue_to_green)
    channels = []
    for small in (_look_up(red, to_red), green, _look_up(blue, to_blue)):
        whole = (2 * small.shape[1], 2 * small.shape[0])
        add = cv2.resize(small, whole, interpolation=cv2.INTER_NEAREST)[:height, :width]
        # Sums of 32nds are exact as floating-point numbers, so rounding them is the same everywhere.
        channels.append(cv2.addWeighted(level, 1 / _PARTS, add, 1 / _PARTS, 0, dtype=cv2.CV_8U))
    return np.asarray(cv2.merge(channels), np.uint8)


def _look_up(plane: Frame, table: Ints) -> Ints:
    """The table's value of each level."""
    return np.asarray(cv2.LUT(plane, table), np.int16)
