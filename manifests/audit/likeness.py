"""How alike are two backgrounds? A number that is high for one place, whatever its light and clutter.

An episode's background is the temporal median of its thumbnails, from which moving things vanish. Two
correlations are added, each after Fisher's transform:

* **detail**: edges and texture, without what varies slowly, and with the contrast made equal all over the
  image. It does not see light and colour, which a session changes and which other rooms share.
* **overall**: brightness and colour, as in `match.confirm`, under windows that undo crops and shifts.

Detail tells places apart that share their colours. Overall finds a place whose camera was moved or zoomed
further than detail tolerates.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from oxcart.manifests.audit.features import GRID
from oxcart.manifests.audit.match import CONFIRM
from oxcart.manifests.audit.windows import Floats, Plain, Thumbs, Windows

OVERALL = 0.3
"""Weight of the overall correlation beside that of detail."""
SMOOTH, NEAR = 3.0, 2.0
"""Standard deviations, in pixels of a thumbnail, of the blur that detail leaves out, and of the surroundings
whose contrast is made equal."""
FAINT = 4.0
"""Variance, in grey levels squared, at which the contrast of the surroundings counts half."""
_STEP = (-1 / GRID, 0.0, 1 / GRID)


Plains: TypeAlias = tuple[Plain, Plain]
"""Backgrounds that others are compared with: their detail, and overall."""


def plains(thumbs: Thumbs) -> Plains:
    """Backgrounds [m, 24, 24, 3], made ready to be compared with others."""
    return DETAIL.plain(thumbs), CONFIRM.plain(thumbs)


def likeness(one: Thumbs, other: Plains) -> Floats:
    """Likeness [n, m] of backgrounds [n, 24, 24, 3] and m others, about 0 to 5; 5 is the same image."""
    number = len(other[0].pixels)
    found = np.zeros((len(one), number), np.float32)
    for windows, weight, theirs in zip((DETAIL, CONFIRM), (1.0, OVERALL), other, strict=True):
        similar = windows.similar(windows.views(one), theirs)
        best = similar.reshape(2 * len(windows), len(one), number).max(0)
        found += np.float32(weight) * np.arctanh(np.clip(best, 0, 0.999))
    return found


def detail(thumbs: Thumbs) -> Floats:
    """The detail [n, 3, 24, 24] of thumbnails [..., 24, 24, 3], of about unit size where there is any."""
    images = np.moveaxis(thumbs.reshape(-1, GRID, GRID, 3), -1, 1).astype(np.float32)
    fine = images - _blurred(images, _COARSE)
    around = _blurred((fine * fine).mean(1, keepdims=True), _AROUND)
    scaled: Floats = fine / np.sqrt(around + FAINT)
    return scaled


def _blurred(images: Floats, kernel: Floats) -> Floats:
    blurred: Floats = np.matmul(kernel @ images, kernel.T)
    return blurred


def _kernel(deviation: float) -> Floats:
    """[24, 24]: a Gaussian blur of one axis, with weights that add up to 1 at the border too."""
    at = np.arange(GRID)
    weights = np.exp(-0.5 * ((at[:, None] - at[None]) / deviation) ** 2)
    scaled: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return scaled


_COARSE, _AROUND = _kernel(SMOOTH), _kernel(NEAR)

DETAIL = Windows(GRID, [(scale, _STEP) for scale in (1.0, 0.93, 0.87, 1.075, 1.15)], planes=detail, flat=0.1)
"""Windows under which details are compared: few, since details of any two places agree under some window."""
