"""Decoded frames to RGB: resized first, plane by plane, and only then converted.

A frame of a video is three planes: brightness, and two of colour with a quarter of the pixels. Resizing them
costs half of resizing RGB, and only the small frame is then converted. Colours keep half the resolution of
the brightness, as in the video itself and as in a JPEG. swscale resizes the planes with its bilinear filter,
which widens with the reduction as Pillow's does and is five times as fast, always with the flags that promise
integer arithmetic and the same bits on every processor. Colours are sums of integers. Frames of other planes
(more than 8 bits, RGB) are converted by swscale first.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from oxcart.compile.images import Frame, Resize

EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""Flags of swscale: integer arithmetic that is the same on every processor."""
BILINEAR, BICUBIC = EXACT | Interpolation.BILINEAR, EXACT | Interpolation.BICUBIC
LONGER = 128
"""Largest longer side of a small frame, in pixels."""

PLANAR = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
"""Pixel formats of three planes of 8 bits."""
LUMA = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
"""Standard -> weights of red and blue in the brightness."""
_STANDARDS = {
    int(Colorspace.ITU709): "709",
    int(Colorspace.ITU601): "601",
    int(Colorspace.SMPTE170M): "601",
    int(Colorspace.BT2020): "2020",
}
HD = 720
"""Minimum height of a frame that is taken to be BT.709 if it names no standard."""
_FULL = int(ColorRange.JPEG)
_PARTS = 512

Floats = npt.NDArray[np.float32]


class Planes(NamedTuple):
    """A frame as videos store it: three planes [h, w] uint8, and the meaning of their levels."""

    bright: Frame
    blue: Frame
    red: Frame
    standard: str
    """Standard that says how colours are weighted: a key of LUMA."""
    full: bool
    """Whether black is 0 and white 255, rather than 16 and 235."""

    def grey(self) -> Frame:
        """Brightness as grey levels [h, w] uint8, black 0 and white 255."""
        return self.bright if self.full else np.asarray(cv2.LUT(self.bright, _STRETCHED), np.uint8)

    def rgb(self, out: Frame | None = None) -> Frame:
        """The frame as RGB [h, w, 3] uint8, written to `out` if it is given.

        Planes of colour may have half the pixels of a side, rounded up.
        """
        height, width = self.bright.shape
        blue, red = self.blue, self.red
        if blue.shape != self.bright.shape:
            blue, red = (_twice(one)[:height, :width] for one in (blue, red))
        whole = cv2.merge([self.bright, blue, red])
        return np.asarray(cv2.transform(whole, _matrix(self.standard, self.full), out), np.uint8)


class Painter:
    """Converts frames to RGB, one after another."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._convert = VideoReformatter()
        self._scale: dict[tuple[int, ...], VideoReformatter] = defaultdict(VideoReformatter)

    def paint(self, frame: VideoFrame, rotation: int, resize: Resize, out: Frame) -> None:
        """Write a frame, resized and turned as it is shown, to `out` [H, W, 3] uint8."""
        turned = rotation % 180 != 0
        shown = (frame.width, frame.height) if turned else (frame.height, frame.width)
        height, width = resize.output_size(*shown)[:: -1 if turned else 1]
        whole = self._planes(frame)
        planes = [whole.bright, whole.blue, whole.red]
        if (height, width) != (frame.height, frame.width):
            box = (
                _middle(frame, height / width) if resize.fit == "crop" else (0, 0, frame.width, frame.height)
            )
            planes = [_cut(one, box, frame) for one in planes]
        half = (height + 1) // 2, (width + 1) // 2
        resized = whole._replace(
            bright=self._resized(planes[0], (height, width)),
            blue=self._resized(planes[1], half),
            red=self._resized(planes[2], half),
        )
        if rotation:
            out[:] = np.rot90(resized.rgb(), rotation // 90)
        else:
            resized.rgb(out)

    def small(self, frame: VideoFrame) -> Planes:
        """A frame made small, not turned: planes of one size, halved until they are small enough."""
        whole = self._planes(frame)
        bright = whole.bright
        while max(bright.shape) > LONGER and min(bright.shape) > 1:
            bright = _halved(bright)
        blue, red = (_as_small(one, *bright.shape) for one in (whole.blue, whole.red))
        return whole._replace(bright=bright, blue=blue, red=red)

    def _planes(self, frame: VideoFrame) -> Planes:
        """The planes of a frame; those of colour have all its pixels, or half along a side."""
        full, standard = _is_full(frame), _standard(frame)
        if frame.format.name not in PLANAR:
            space = None
            if frame.format.is_rgb or frame.format.has_palette:
                space, standard = Colorspace.ITU601, "601"
            frame = self._convert.reformat(
                frame,
                format="yuv444p",
                dst_colorspace=space,
                interpolation=BICUBIC,
                src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            full = False
        bright, blue, red = (_pixels(plane) for plane in frame.planes)
        return Planes(bright, blue, red, standard, full)

    def _resized(self, plane: Frame, size: tuple[int, int]) -> Frame:
        if plane.shape == size:
            return plane
        height, width = size
        grey = VideoFrame.from_numpy_buffer(plane, "gray")
        scale = self._scale[plane.shape]
        return _pixels(scale.reformat(grey, width, height, interpolation=BILINEAR, threads=1).planes[0])


def _pixels(plane: VideoPlane) -> Frame:
    """The pixels [h, w] of a plane, without a copy."""
    return np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), 0, (plane.line_size, 1))


def _halved(plane: Frame) -> Frame:
    """Means of 2x2 pixels, rounded; an odd last row or column is left out."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    found = cv2.resize(plane[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(found, np.uint8)


def _as_small(plane: Frame, height: int, width: int) -> Frame:
    """A plane of colour, halved or doubled to the size of the brightness."""
    while plane.shape[0] >= 2 * height and plane.shape[1] >= 2 * width:
        plane = _halved(plane)
    while plane.shape[0] < height or plane.shape[1] < width:
        plane = _twice(plane)
    return plane[:height, :width]


def _twice(plane: Frame) -> Frame:
    """A plane with each pixel repeated 2x2 times; `cv2.resize` takes four times as long."""
    height, width = plane.shape
    pairs = np.empty((height, 2, width), np.uint16)
    np.multiply(plane, 257, out=pairs[:, 0], dtype=np.uint16)
    pairs[:, 1] = pairs[:, 0]
    return pairs.view(np.uint8).reshape(2 * height, 2 * width)


def _standard(frame: VideoFrame) -> str:
    """The standard of a frame's colours: as the frame says, else as is usual for its size."""
    usual = "709" if min(frame.height, frame.width) >= HD else "601"
    return _STANDARDS.get(int(frame.colorspace), usual)


def _is_full(frame: VideoFrame) -> bool:
    """Whether black is 0 and white 255, rather than 16 and 235."""
    kind = frame.format
    if kind.is_rgb or kind.has_palette or kind.name.startswith(("yuvj", "gray", "ya")):
        return True
    return int(frame.color_range) == _FULL


def _middle(frame: VideoFrame, shape: float) -> tuple[int, int, int, int]:
    """The largest box of a shape (height / width) in the middle of a frame, on even pixels."""
    height = min(frame.height, max(1, round(frame.width * shape)))
    width = min(frame.width, max(1, round(frame.height / shape)))
    top, left = (frame.height - height) // 4 * 2, (frame.width - width) // 4 * 2
    return left, top, left + width, top + height


def _cut(plane: Frame, box: tuple[int, int, int, int], frame: VideoFrame) -> Frame:
    """The part of a plane that a box of the frame covers; the plane may have fewer pixels."""
    across = 1 if plane.shape[1] == frame.width else 2
    down = 1 if plane.shape[0] == frame.height else 2
    left, top, right, bottom = box
    return plane[top // down : -(-bottom // down), left // across : -(-right // across)]


@lru_cache(maxsize=8)
def _matrix(standard: str, full: bool) -> Floats:
    """Weights [3, 4] of brightness, the two colours and a constant in red, green and blue.

    They are 512ths, and the constant is an odd number of 1024ths. So sums are exact in floating point and in
    the fixed point that OpenCV uses on some processors, and none is a half, which these would round unalike.
    """
    red, blue = LUMA[standard]
    green = 1 - red - blue
    scale, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    to_red, to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    weights = np.array(
        [
            [scale, 0, to_red],
            [scale, -to_blue * blue / green, -to_red * red / green],
            [scale, to_blue, 0],
        ]
    )
    found = np.empty((3, 4), np.float32)
    found[:, :3] = np.round(weights * _PARTS) / _PARTS
    zero = np.array([0 if full else 16, 128, 128])
    found[:, 3] = np.round(found[:, :3].astype(np.float64) @ -zero * _PARTS) / _PARTS + 1 / (2 * _PARTS)
    return found


_STRETCHED = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
"""Grey level of each level of brightness where black is 16 and white 235."""
