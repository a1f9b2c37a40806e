"""Which held-out environment is one of train's under another name? A contrast, judged by those of train.

    found = judge(held, train)                  # likenesses [V, E] and [N, E] to E environments of train
    found.excess > found.limit                  # [V]: which of them may be a twin

Rooms of one building are alike, so a high likeness alone says little. What counts is the contrast: how much
more alike an environment is to its best match than, on average, to the others. A twin resembles one
environment of train and no other. The contrasts of train's own environments, each left out in turn, say how
large a contrast is without a twin. The excess of an environment is its contrast above their median.

No rank is significant among four environments. So the limit of the excess is a constant, and three robust
deviations of train's contrasts where these vary more than that. The constant comes from simulated kitchens:
it is the excess that 1 in 500 of those without a twin reach. `bench/audit.py --only twins` computes it, and
measures on other kitchens how often twins are found and others accused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FEWEST = 3
"""Minimum number of environments of train: with fewer, theirs have no contrast."""
EXCESS = 0.32
"""Excess that 1 in 500 environments without a twin reach."""
TAIL = 0.05
"""By how much the excess grows that is reached as rarely by the largest of e times as many environments."""
DEVIATIONS = 3.0
"""Robust deviations of train's contrasts that the limit is at least."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Twins:
    """The result of the twin test; contrasts are differences of likenesses."""

    contrast: Floats
    """[V]: contrast of each held-out environment; NaN if fewer than two environments differ from it."""
    null: Floats
    """[N]: contrasts of environments of train."""
    excess: Floats
    """[V]: `contrast` above the median of `null`."""
    limit: float
    """Excess above which an environment may be a twin."""


def contrasts(likeness: Floats) -> Floats:
    """Contrast [Q] of environments with likenesses [Q, E], where NaN marks an environment itself."""
    found = np.full(len(likeness), np.nan)
    for row, values in enumerate(likeness):
        others = np.sort(values[~np.isnan(values)])[::-1]
        if len(others) > 1:
            found[row] = others[0] - others[1:].mean()
    return found


def judge(held: Floats, train: Floats) -> Twins:
    """Judge V held-out environments beside N of train, given their likenesses [V, E] and [N, E] to train."""
    contrast, null = contrasts(held), contrasts(train)
    middle = float(np.median(null))
    deviation = 1.4826 * float(np.median(np.abs(null - middle)))
    tested = max(1, int((~np.isnan(contrast)).sum()))
    limit = max(EXCESS + TAIL * math.log(tested), DEVIATIONS * deviation)
    return Twins(contrast=contrast, null=null, excess=contrast - middle, limit=limit)
