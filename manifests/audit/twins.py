"""Which held-out environment is one of train's under another name? A contrast, judged by those of train.

    found = judge(held, train, held_of, train_of)    # likenesses [V, E] and [N, E] to E of train
    found.excess > found.limit                       # [V]: which of those held out may be a twin

Rooms of one building are alike, so a high likeness alone says little. What counts is the contrast: how much
more alike an environment is to its best match than, on average, to the others. A twin resembles one
environment of train and no other. The contrasts of train's own environments, each left out in turn, say how
large a contrast is without a twin; those of the same dataset, since rooms of one lab resemble each other in a
mixture too. The excess of an environment is its contrast above their median.

Where train's environments themselves come in twins, as they do if they are named by session, their contrasts
are no measure. So the median counts only up to the usual.

No rank is significant among four environments. So the limit of the excess is a constant, and three robust
deviations of train's contrasts where these vary more than that. The constants come from simulated kitchens:
they are what 1 in 500 splits without a twin reach. `bench/audit.py --only twins` computes them, and measures
on other kitchens how often twins are found and others accused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FEWEST = 3
"""Minimum number of environments of train: with fewer, theirs have no contrast."""
EXCESS = 0.39
"""Excess that 1 in 500 environments without a twin reach."""
TAIL = 0.07
"""By how much the excess grows that is reached as rarely by the largest of e times as many environments."""
USUAL = 0.35
"""Median contrast of train's environments that 1 in 500 splits without a twin reach."""
DEVIATIONS = 3.0
"""Robust deviations of train's contrasts that the limit is at least, where their median is usual."""

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Twins:
    """The result of the twin test."""

    middle: float
    """Median contrast of the environments of train, a difference of likenesses."""
    null: Floats
    """[N]: excess of environments of train, each left out in turn."""
    excess: Floats
    """[V]: excess of the held-out environments."""
    limit: Floats
    """[V]: excess above which each may be a twin."""


def contrasts(likeness: Floats) -> Floats:
    """Contrast [Q] of environments with likenesses [Q, E], where NaN marks an environment itself."""
    found = np.full(len(likeness), np.nan)
    for row, values in enumerate(likeness):
        others = np.sort(values[~np.isnan(values)])[::-1]
        if len(others) > 1:
            found[row] = others[0] - others[1:].mean()
    return found


def judge(held: Floats, train: Floats, held_of: Ints, train_of: Ints) -> Twins:
    """Judge held-out environments beside those of train.

    Args:
        held: likenesses [V, E] of held-out environments to those of train; at least two of a row are not NaN.
        train: likenesses [N, E] of environments of train, NaN where an environment meets itself.
        held_of: dataset [V] of each held-out environment.
        train_of: dataset [N] of each environment of train.
    """
    contrast, own = contrasts(held), contrasts(train)
    of = {dataset: own[train_of == dataset] for dataset in np.unique(train_of).tolist()}
    null, middles, limits = own.copy(), np.empty(len(held)), np.empty(len(held))
    for dataset in {*held_of.tolist(), *train_of.tolist()}:
        mine = of[dataset] if len(of.get(dataset, ())) >= FEWEST else own
        middle = float(np.median(mine))
        deviation = 1.4826 * float(np.median(np.abs(mine - middle)))
        least = DEVIATIONS * deviation if middle <= USUAL else 0.0
        middles[held_of == dataset] = min(middle, USUAL)
        limits[held_of == dataset] = max(EXCESS + TAIL * math.log(len(held)), least)
        null[train_of == dataset] -= middle
    return Twins(middle=float(np.median(own)), null=null, excess=contrast - middles, limit=limits)
