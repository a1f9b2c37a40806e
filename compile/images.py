"""Encoded images to frames: the one place where pixels are made.

Decoding and resizing are Pillow's (libjpeg-turbo; a resize in integer arithmetic), fixed here and not probed
at run time, so the same bytes give the same pixels everywhere with the same Pillow.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from oxcart.shards.errors import ConfigError

FITS = ("stretch", "crop")
MAX_PIXELS = 1 << 26
"""A larger image is refused from its header, before memory is taken."""

Frame = npt.NDArray[np.uint8]


class ImageError(Exception):
    """An image cannot be decoded; the caller knows which one it is and says so."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How frames get their size."""

    size: tuple[int, int] | None = None
    """Height and width in pixels; None keeps the source's."""
    fit: str = "stretch"
    """`stretch` ignores the aspect ratio, `crop` cuts the middle out of the longer side first."""

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"fit: expected one of {', '.join(FITS)}, got {self.fit!r}")
        if self.size is not None and not all(1 <= side <= 8192 for side in self.size):
            raise ConfigError(f"size: expected 1 to 8192 pixels a side, got {self.size[0]}x{self.size[1]}")

    def describe(self) -> dict[str, Any]:
        """As plain JSON, with the filter, which is fixed; without a size nothing else counts."""
        if self.size is None:
            return {"size": None, "fit": None, "filter": None}
        return {"size": list(self.size), "fit": self.fit, "filter": "bilinear"}

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the frames of a camera whose images are `height` x `width`."""
        return self.size or (height, width)


def image_size(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width from an image's header; no pixel is decoded.

    Raises:
        ImageError: it is no image, or an absurdly large one.
    """
    with _open(data) as image:
        return image.height, image.width


def decode_into(out: Frame, data: bytes | memoryview, size: tuple[int, int], resize: Resize) -> None:
    """Decode one image, resize it, and write it to `out`.

    Args:
        out: [H, W, 3] uint8, of `resize.output_size(*size)`.
        data: JPEG or PNG bytes.
        size: height and width that the image must have.
        resize: how it gets the size of `out`.

    Raises:
        ImageError: it cannot be decoded or has another size.
    """
    with _open(data) as image:
        if (image.height, image.width) != size:
            found, expected = f"{image.height}x{image.width}", f"{size[0]}x{size[1]}"
            raise ImageError(f"is {found} pixels where the episode has {expected}")
        try:
            image.load()
            picture = _to_rgb(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"cannot be decoded: {error}") from error
        height, width = out.shape[:2]
        if (height, width) != size:
            if resize.fit == "crop":  # not `resize(box=...)`, whose filter looks beyond the box
                picture = picture.crop(_middle(size, (height, width)))
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        out[:] = np.asarray(picture)


def _open(data: bytes | memoryview) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"claims more than {MAX_PIXELS} pixels; such an image is refused") from error
    except (OSError, SyntaxError, ValueError) as error:
        begins = data[:8].hex(" ") or "nothing"
        raise ImageError(f"is neither JPEG nor PNG ({len(data)} bytes, begins with {begins})") from error
    if image.height * image.width > MAX_PIXELS:
        raise ImageError(f"claims {image.height}x{image.width} pixels; more than {MAX_PIXELS} are refused")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Without transparency; of 16 bits the high 8, for grey as Pillow has it for colour."""
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _middle(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box of the target's aspect ratio in the middle of an image: left, top, right, bottom."""
    height, width = size
    box_height = min(height, max(1, round(width * target[0] / target[1])))
    box_width = min(width, max(1, round(height * target[1] / target[0])))
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return left, top, left + box_width, top + box_height
