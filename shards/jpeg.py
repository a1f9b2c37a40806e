"""Decode and encode JPEG images, in one place.

libjpeg-turbo decodes, through simplejpeg, which writes into the caller's buffer and releases the GIL. It runs
in strict mode. Pillow handles what it refuses (damage that a decoder can conceal) and all images that
are neither grey nor of three components: it is the same library with the same settings, so the pixels are the
same, at less than half the speed. The choice between the two is fixed here.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

SUBSAMPLING = "420"
"""Chroma subsampling of frames that are encoded here, that of nearly every JPEG in the field."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that begin a frame and state its size."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""The next marker that is not part of the data of a scan."""

Frame = npt.NDArray[np.uint8]


def decode_jpeg(data: bytes | memoryview, out: Frame) -> None:
    """Decode one JPEG to RGB.

    Args:
        data: the image.
        out: [H, W, 3] uint8, contiguous, of the size of the image.

    Raises:
        ValueError: the image cannot be decoded, or has another size.
    """
    if _header(data) in ((*out.shape[:2], 1), (*out.shape[:2], 3)):
        with contextlib.suppress(ValueError):
            simplejpeg.decode_jpeg(data, buffer=out)
            return
    _decode_with_pillow(data, out)


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """Encode an RGB frame [H, W, 3] uint8 at a quality of 1 to 100."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(frame), quality, "RGB", SUBSAMPLING, fastdct=False
    )
    return encoded


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Height and width from the header; None if the data is not a complete JPEG of 8 bits per sample.

    A complete JPEG begins and ends as a JPEG does; more bytes may follow the end. Nothing is decoded.
    """
    header = _header(data)
    return header[:2] if header and (data[-2:] == b"\xff\xd9" or _has_end(data)) else None


def is_colour(data: bytes | memoryview) -> bool:
    """Whether the header of a JPEG states several components, so that it is not grey; nothing is decoded."""
    header = _header(data)
    return header is None or header[2] > 1


def _has_end(data: bytes | memoryview) -> bool:
    """Whether a decoder meets the marker of the end, rather than the same bytes inside a segment."""
    return any(marker == _END_OF_IMAGE for marker, _ in _segments(data))


def _header(data: bytes | memoryview) -> tuple[int, int, int] | None:
    """Height, width and components; None if the data is not a JPEG of 8 bits per sample."""
    if data[:2] != b"\xff\xd8":
        return None
    for marker, start in _segments(data):
        if marker in _FRAMES and start + 10 <= len(data):
            height, width = (int.from_bytes(data[start + i : start + i + 2], "big") for i in (5, 7))
            return (height, width, data[start + 9]) if data[start + 4] == 8 and height and width else None
    return None


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """The marker of each segment and the position where it begins."""
    position = 2
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield marker, position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            found = _AFTER_SCAN.search(data, position)
            if found is None:
                return
            position = found.end() - 2


def _decode_with_pillow(data: bytes | memoryview, out: Frame) -> None:
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        if (image.height, image.width) != out.shape[:2]:
            found, expected = f"{image.height}x{image.width}", f"{out.shape[0]}x{out.shape[1]}"
            raise ValueError(f"is {found} pixels where the episode has {expected}")
        out[:] = np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:  # its own words hold an address in memory
        raise ValueError("cannot be decoded: its header is no JPEG's") from error
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"cannot be decoded: {error}") from error
