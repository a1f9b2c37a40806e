"""Correlations of small images under windows (cropped, enlarged, shifted or mirrored), invariant to lighting.

    windows.similar(windows.views(frames), windows.plain(others))          # [W, 2n, m]

A window says which part of the query's frame corresponds to the whole of the other frame. Its pixels come
from two resampling matrices, for rows and columns, so all windows of a scale take two matrix products. Pixels
that only one of the two frames has do not count, and both sides are centred over the rest. This is
correlation as in template matching (Lewis 1995), over a small set of places, because images are only 16
pixels wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.features import GRID

Floats = npt.NDArray[np.float32]
Thumbs = npt.NDArray[np.uint8]


class Windows:
    """A set of windows at one resolution.

    Args:
        side: pixels of a side of the images that are compared.
        scales: side of the query's window in sides of the other's frame, and offsets of its middle, the same
            set down and across.
        planes: makes planes [n, 3, 24, 24] of thumbnails [..., 24, 24, 3]; `opponent_planes` if None.
        flat: length of the planes of an image below which it shows nothing, per pixel of a side; 2 is 1.2
            grey levels a pixel.
    """

    def __init__(
        self,
        side: int,
        scales: Sequence[tuple[float, Sequence[float]]],
        planes: Callable[[Thumbs], Floats] | None = None,
        flat: float = 2.0,
    ) -> None:
        self.side = side
        self._planes = planes or opponent_planes
        self.numbers = [(scale, y, x) for scale, offsets in scales for y in offsets for x in offsets]
        """Scale, and offset down and to the right, of each window."""
        self._operators = [
            np.stack([_resampling(side, scale, offset) for offset in offsets]) for scale, offsets in scales
        ]
        self._straight = _resampling(side, 1.0, 0.0)
        masks = []
        for operators in self._operators:
            inside = (operators.sum(2) > 0).astype(np.float32)
            masks.append(np.einsum("ay,bx->abyx", inside, inside).reshape(-1, side * side))
        self._shared: Floats = np.concatenate(masks)
        """[W, side * side]: 1 where both frames have a pixel."""
        self._cells: Floats = self._shared.sum(1)
        self._flat = flat * side
        """A length below it is noise of a flat frame."""

    def __len__(self) -> int:
        return len(self.numbers)

    def similar(self, views: Views, plain: Plain) -> Floats:
        """Correlations [W, n, m] of viewed frames and plain ones; flat ones have about 0."""
        products = (views.pixels @ plain.pixels.T).reshape(len(self), -1, len(plain.pixels))
        products -= views.means @ plain.sums
        products /= views.lengths[..., None]
        products /= plain.lengths[:, None]
        return products

    def plain(self, thumbs: Thumbs) -> Plain:
        """Unchanged frames [..., 24, 24, 3], with the sums that each window needs of them."""
        pixels = (self._straight @ self._planes(thumbs) @ self._straight.T).astype(np.float32)
        flat = pixels.reshape(len(pixels), 3, self.side**2)
        sums = (flat.reshape(-1, self.side**2) @ self._shared.T).reshape(len(flat), 3, -1).transpose(2, 1, 0)
        squares = self._shared @ (flat * flat).sum(1).T
        variance = squares - (sums * sums).sum(1) / self._cells[:, None]
        lengths = np.sqrt(np.maximum(variance, self._flat**2)).astype(np.float32)
        return Plain(flat.reshape(len(flat), -1), np.ascontiguousarray(sums, np.float32), lengths)

    def views(self, frames: Thumbs) -> Views:
        """Frames [n, 24, 24, 3] under every window, first unchanged and then mirrored: 2n of them."""
        from_frames = self._planes(np.concatenate([frames, frames[:, :, ::-1]]))
        number, side = len(from_frames), self.side
        pixels = np.empty((len(self), number, 3, side, side), np.float32)
        start = 0
        for operators in self._operators:
            offsets = len(operators)
            flat = operators.reshape(offsets * side, GRID)
            # Rows first, then columns; every pair of offsets shares them.
            tall = np.matmul(flat, from_frames.reshape(number * 3, GRID, GRID)).reshape(-1, GRID)
            both = (tall @ flat.T).reshape(number, 3, offsets, side, offsets, side)
            out = pixels[start : start + offsets**2].reshape(offsets, offsets, number, 3, side, side)
            out[:] = both.transpose(2, 4, 0, 1, 3, 5)
            start += offsets**2
        by_plane = pixels.reshape(len(self), number, 3, side * side)
        sums = by_plane.sum(-1)
        squares = np.einsum("wnci,wnci->wn", by_plane, by_plane)
        variance = squares - (sums * sums).sum(-1) / self._cells[:, None]
        lengths = np.sqrt(np.maximum(variance, 0))
        return Views(
            pixels.reshape(len(self) * number, -1),
            sums / self._cells[:, None, None],
            np.where(lengths > self._flat, lengths, np.inf).astype(np.float32),
        )


class Views:
    """Frames under windows: pixels [W * n, 3 * side^2], 0 outside; means [W, n, 3]; lengths [W, n]."""

    def __init__(self, pixels: Floats, means: Floats, lengths: Floats) -> None:
        self.pixels, self.means, self.lengths = pixels, means, lengths


class Plain:
    """Unchanged frames: pixels [m, 3 * side^2]; sums over each window [W, 3, m]; centred lengths [W, m]."""

    def __init__(self, pixels: Floats, sums: Floats, lengths: Floats) -> None:
        self.pixels, self.sums, self.lengths = pixels, sums, lengths


def opponent_planes(thumbs: Thumbs) -> Floats:
    """Images [..., 24, 24, 3] uint8 as brightness and two colour differences [n, 3, 24, 24], each centred."""
    flat = thumbs.reshape(-1, GRID, GRID, 3).astype(np.float32)
    found = np.ascontiguousarray(np.moveaxis(opponents(flat), -1, 1))
    found -= found.mean((2, 3), keepdims=True)
    return found


def opponents(rgb: Floats) -> Floats:
    """Brightness, red minus green, and yellow minus blue, of [..., 3]."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([grey, red - green, (red + green) / 2 - blue], axis=-1)


def _resampling(side: int, scale: float, offset: float) -> Floats:
    """[side, 24]: means over the pixels that each cell of a window covers; 0 outside the frame."""
    edges = (np.arange(side + 1) / side - 0.5) * scale + 0.5 + offset
    low, high = edges[:-1] * GRID, edges[1:] * GRID
    pixel = np.arange(GRID)
    cover = np.clip(np.minimum(high[:, None], pixel + 1) - np.maximum(low[:, None], pixel), 0, None)
    inside = cover.sum(1) >= 0.99 * (high - low)
    weights: Floats = np.where(inside[:, None], cover / (high - low)[:, None], 0).astype(np.float32)
    return weights
