"""What codec `zstd` compresses: differences of frames, and how they are undone.

The frames of a chunk are stored minus their predecessors, mod 256; of the first frame each row is stored
minus the row above it, except those rows whose index is a multiple of 16. Residuals are small numbers, which
compress; and both directions are a few whole-array additions that release the GIL. With a difference in
every row the first frame would shrink by 2% more, but undoing it would take one small addition after another
for all its rows; so the rows come in 16 sets, and each addition is of one set.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS = 16
"""A row whose index is a multiple of this is stored as it is."""

Frames = npt.NDArray[np.uint8]


def difference(frames: Frames, out: Frames) -> None:
    """Write the residuals of one chunk's frames [n, H, W, 3] to `out`, of the same shape."""
    np.subtract(frames[1:], frames[:-1], out=out[1:])
    rows, residuals = frames[0], out[0]
    residuals[::ROWS] = rows[::ROWS]
    for i in range(1, min(ROWS, len(rows))):
        inner = residuals[i::ROWS]
        np.subtract(rows[i::ROWS], rows[i - 1 :: ROWS][: len(inner)], out=inner)


def restore(frames: Frames) -> None:
    """Turn the residuals of a chunk, or of its first n frames, into the frames, in place.

    Args:
        frames: [n, H, W, 3] uint8, contiguous.
    """
    rows = frames[0]
    whole = len(rows) // ROWS * ROWS
    # Sums of 2, 4, 8, … rows: few large additions, since NumPy takes the interpreter's lock between any two.
    for half in (1 << i for i in range(ROWS.bit_length() - 1)):
        runs = rows[:whole].reshape(-1, 2 * half, *rows.shape[1:])
        np.add(runs[:, half:], runs[:, half - 1 : half], out=runs[:, half:])
    for row, before in zip(rows[whole + 1 :], rows[whole:-1], strict=True):
        np.add(row, before, out=row)
    for frame, before in zip(frames[1:], frames[:-1], strict=True):
        np.add(frame, before, out=frame)
