"""Resize frames with Pillow's bilinear filter, which computes with integers: the same pixels everywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def resize_into(out: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8] | Image.Image) -> None:
    """Resize a frame [h, w, 3] uint8, or an image, to the size of `out` [H, W, 3]; shapes may differ."""
    source = image if isinstance(image, Image.Image) else Image.fromarray(image)
    out[:] = np.asarray(source.resize((out.shape[1], out.shape[0]), Image.Resampling.BILINEAR))
