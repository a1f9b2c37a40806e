"""A sketch of the numbers of an episode, by which a copy is found again whose converter has changed some.

Converters keep most columns of an action or a state as they are. They turn the gripper around, write a
rotation in another way, reorder, pad, round to float32, or drop the first step. So each column counts by
itself, wherever it stands: of its runs of three steps, the three with the smallest hashes are kept. A
column that the converter kept has the same, unless one of them was in a step that it dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.compile.sources.base import Floats

RUN, KEPT = 3, 3
"""Steps of a run, and runs kept of each column."""
_DROPPED = 11
"""Bits dropped of the 23 of a mantissa, since two ways to compute a value differ in the last ones."""
_SPREAD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
"""A factor for each step of a run."""
_MIX = 0xBF58476D1CE4E5B9
_NOTHING = np.uint32(0xFFFFFFFF)


def sketch(arrays: Iterable[Floats]) -> tuple[int, ...]:
    """Hashes of 32 bits, sorted, of the actions and states [T, A] of an episode; none if it does not move."""
    found = [_smallest(array) for array in arrays if len(array) >= RUN and array.shape[1]]
    if not found:
        return ()
    every = np.unique(np.concatenate(found))
    return tuple(every[every != _NOTHING].tolist())


def _smallest(array: Floats) -> npt.NDArray[np.uint32]:
    """The smallest hashes of the runs of each column whose values all differ: a gripper that closes tells
    nothing."""
    bits = np.ascontiguousarray(array + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    rounded = ((bits >> (_DROPPED - 1)) + np.uint32(1)) >> 1
    count = len(array) - RUN + 1
    steps: list[npt.NDArray[Any]] = [rounded[at : at + count] for at in range(RUN)]
    mixed = np.zeros(steps[0].shape, np.uint64)
    for step, factor in zip(steps, _SPREAD, strict=True):
        mixed += step.astype(np.uint64) * np.uint64(factor)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX)
    hashes = (mixed >> np.uint64(32)).astype(np.uint32)
    one, two, three = steps
    hashes[(one == two) | (two == three) | (one == three)] = _NOTHING
    return np.sort(hashes, axis=0)[:KEPT].ravel()
