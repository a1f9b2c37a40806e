"""Decode encoded images to frames: the one place where a source's pixels are made.

The pixels are those of Pillow (libjpeg-turbo; a resize in integer arithmetic). Two common kinds take a faster
way to the same pixels: JPEG through `oxcart.shards.jpeg`, and PNG of 8-bit colour through libspng. As libspng
ignores checksums, they are checked here. The choice is fixed and not probed at run time, so the same bytes
give the same pixels everywhere with the same libraries.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyspng
from PIL import Image

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.shards.jpeg import decode_jpeg
from oxcart.shards.resize import resize_into as stretch_into

FITS = ("stretch", "crop")
MAX_PIXELS = 1 << 26
"""Maximum number of pixels of an image; larger ones are refused by their header, before memory is taken."""

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
"""First bytes of a JPEG file and of a PNG file."""
PLAIN = bytes((8, 2, 0, 0, 0))
"""End of a PNG header: 8 bits, colour, the only compression and filter, and no interlace."""

Frame = npt.NDArray[np.uint8]


class ImageError(Exception):
    """An image cannot be decoded; the caller adds which image it is."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How frames get their size."""

    size: tuple[int, int] | None = None
    """Height and width in pixels; None keeps the size of the source."""
    fit: str = "stretch"
    """`stretch` ignores the aspect ratio, `crop` cuts the middle out of the longer side first."""

    def __post_init__(self) -> None:
        one_of("fit", self.fit, FITS)
        if self.size is not None and not all(1 <= side <= 8192 for side in self.size):
            raise ConfigError(f"size: expected 1 to 8192 pixels per side, got {self.size[0]}x{self.size[1]}")

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON, with the filter, which is fixed; without a size nothing else counts."""
        if self.size is None:
            return {"size": None, "fit": None, "filter": None}
        return {"size": list(self.size), "fit": self.fit, "filter": "bilinear"}

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the frames of a camera whose images are `height` x `width`."""
        return self.size or (height, width)


def image_size(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width from an image's header; no pixel is decoded.

    Raises:
        ImageError: the data is not an image, or the image is absurdly large.
    """
    with _open(data) as image:
        return image.height, image.width


def decode_into(
    out: Frame, data: bytes | memoryview, size: tuple[int, int], resize: Resize, *, bgr: bool = False
) -> None:
    """Decode one image, resize it, and write it to `out`.

    Args:
        out: [H, W, 3] uint8, contiguous, of `resize.output_size(*size)`.
        data: JPEG or PNG bytes.
        size: height and width that the image must have.
        resize: how the image gets the size of `out`.
        bgr: whether the image holds blue where others hold red, and red for blue; `out` is RGB.

    Raises:
        ImageError: the image cannot be decoded, or has another size.
    """
    same = out.shape[:2] == size
    frame = out if same else np.empty((*size, 3), np.uint8)
    if data[:2] == JPEG:
        try:
            decode_jpeg(data, frame)
        except ValueError as error:
            raise ImageError(str(error)) from error
    elif _is_plain_png(data, size):
        try:
            frame[:] = pyspng.load(bytes(data), "RGB")
        except (RuntimeError, ValueError) as error:
            raise ImageError(f"cannot be decoded: {error}") from error
    else:
        frame[:] = _decode_with_pillow(data, size)
    if bgr:
        frame[:] = frame[:, :, ::-1].copy()
    if not same:
        resize_into(out, frame, resize)


def resize_into(out: Frame, frame: Frame, resize: Resize) -> None:
    """Resize a frame [h, w, 3] uint8 to the size of `out` [H, W, 3]."""
    image, (height, width) = Image.fromarray(frame), out.shape[:2]
    if resize.fit == "crop":  # not `resize(box=...)`, whose filter looks beyond the box
        image = image.crop(_middle((image.height, image.width), (height, width)))
    stretch_into(out, image)


def _is_plain_png(data: bytes | memoryview, size: tuple[int, int]) -> bool:
    """Whether data is a whole PNG of this size in 8-bit colour, not interlaced, with right checksums."""
    kind = b"".join([*(side.to_bytes(4, "big") for side in reversed(size)), PLAIN])
    if data[:8] != PNG or data[12:16] != b"IHDR" or data[16:29] != kind:
        return False
    view, position, name = memoryview(data), 8, b""
    while name != b"IEND":
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 8 + length
        name = bytes(view[position + 4 : position + 8])
        if name == b"acTL" or end + 4 > len(view):
            return False
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        position = end + 4
    return True


def _decode_with_pillow(data: bytes | memoryview, size: tuple[int, int]) -> Frame:
    with _open(data) as image:
        if (image.height, image.width) != size:
            found, expected = f"{image.height}x{image.width}", f"{size[0]}x{size[1]}"
            raise ImageError(f"is {found} pixels where the episode has {expected}")
        try:
            image.load()
            return np.asarray(_to_rgb(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"cannot be decoded: {error}") from error


def _open(data: bytes | memoryview) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"claims more than {MAX_PIXELS} pixels; such an image is refused") from error
    except (OSError, SyntaxError, ValueError) as error:
        begins = bytes(data[:8]).hex(" ") or "nothing"
        raise ImageError(f"is neither JPEG nor PNG ({len(data)} bytes, begins with {begins})") from error
    if image.height * image.width > MAX_PIXELS:
        raise ImageError(f"claims {image.height}x{image.width} pixels; more than {MAX_PIXELS} are refused")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB without transparency; 16-bit grey keeps its high 8 bits, as Pillow does for colour."""
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _middle(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest centred box with the aspect ratio of the target."""
    height, width = size
    box_height = min(height, max(1, round(width * target[0] / target[1])))
    box_width = min(width, max(1, round(height * target[1] / target[0])))
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return left, top, left + box_width, top + box_height
