"""The transform before codec `zstd` compresses: differences between frames, and their inverse.

The frames of a chunk are stored minus their predecessors, mod 256. In the first frame each row is stored
minus the row above it, except rows whose index is a multiple of 16. Residuals are small numbers, which
compress well, and both directions are a few whole-array additions that release the GIL. Differences in every
row would shrink the first frame by another 2%, but undoing them takes one small addition per row, one after
another; with 16 independent sets of rows, each addition covers a whole set.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS = 16
"""Interval of the rows of a first frame that are stored unchanged."""

Frames = npt.NDArray[np.uint8]


def difference(frames: Frames, out: Frames) -> None:
    """Write the residuals of the frames of one chunk [n, H, W, 3] to `out`, of the same shape."""
    np.subtract(frames[1:], frames[:-1], out=out[1:])
    rows, residuals = frames[0], out[0]
    residuals[::ROWS] = rows[::ROWS]
    for i in range(1, min(ROWS, len(rows))):
        inner = residuals[i::ROWS]
        np.subtract(rows[i::ROWS], rows[i - 1 :: ROWS][: len(inner)], out=inner)


def restore(frames: Frames) -> None:
    """Turn the residuals of a chunk, or of its first n frames, into frames, in place.

    Args:
        frames: [n, H, W, 3] uint8, contiguous.
    """
    rows = frames[0]
    whole = len(rows) // ROWS * ROWS
    # Sums of 2, 4, 8, … rows: few large additions, since NumPy takes the GIL between any two.
    for half in (1 << i for i in range(ROWS.bit_length() - 1)):
        runs = rows[:whole].reshape(-1, 2 * half, *rows.shape[1:])
        np.add(runs[:, half:], runs[:, half - 1 : half], out=runs[:, half:])
    for row, before in zip(rows[whole + 1 :], rows[whole:-1], strict=True):
        np.add(row, before, out=row)
    for frame, before in zip(frames[1:], frames[:-1], strict=True):
        np.add(frame, before, out=frame)
