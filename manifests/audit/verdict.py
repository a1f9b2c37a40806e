"""From scores to a verdict: the null distribution, the threshold, the binomial bound, and the one word.

The unit is an episode that is held out, its score the best one against train. The null is what such a score
is where nothing leaks: each train episode's best score against train without its own environment. The
threshold is exceeded by 0.1% of the null. A null of fewer than 1,000 episodes does not reach that far out;
there the threshold is the larger of its maximum and a normal tail fitted to it, and the rate is the one
that the maximum of n values can promise whatever their distribution, 1 / (n + 1). The verdict is a leak
when more episodes exceed the threshold than 99 of 100 draws of a binomial distribution of that rate would,
or on any exact duplicate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.result import FAILED, UNCHECKED, Check, count

LEAK, CLEAN, UNCLEAR = "leak", "clean", "not checked"

RATE = 0.001
"""Share of the null beyond the threshold."""
CONFIDENCE = 0.99
"""Of the binomial bound."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where a score stops being chance."""

    value: float
    """Scores above it count."""
    rate: float
    """How often the best score of an episode that leaks nothing exceeds it, at most."""
    null: int
    """Episodes of the null."""
    how: str
    """How it was found, for people."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer."""

    word: str
    """`leak`, `clean` or `not checked`."""
    because: tuple[str, ...]
    """Sentences, the weightiest first."""


def threshold(null: npt.NDArray[np.float32]) -> Threshold:
    """The threshold of a null distribution of at least two scores."""
    scores = np.sort(null.astype(np.float64))[::-1]
    number = len(scores)
    beyond = int(RATE * number)
    if beyond >= 1:
        value = float(scores[beyond])
        how = f"{RATE:.1%} of {number:,} null scores exceed it"
        return Threshold(value=value, rate=max(RATE, beyond / number), null=number, how=how)
    value, reach = float(scores[0]), _tail(scores)
    how = f"the largest of {number:,} null scores"
    if reach > value:
        value, how = reach, f"the {1 - RATE:.1%} quantile of a normal tail fitted to {number:,} null scores"
    return Threshold(value=value, rate=1 / (number + 1), null=number, how=how)


def _tail(scores: npt.NDArray[np.float64]) -> float:
    """The quantile of `RATE` of a normal distribution with the median and the upper spread of the scores.

    Correlations end at 1, so they are spread out by Fisher's transform first.
    """
    spread = np.arctanh(np.clip(scores, -0.999, 0.999))
    middle = float(np.median(spread))
    upper = spread[spread >= middle] - middle
    deviation = math.sqrt(float((upper * upper).mean()))
    return math.tanh(middle + NormalDist().inv_cdf(1 - RATE) * deviation)


def bound(number: int, rate: float) -> int:
    """The most of `number` that exceed in 99 of 100 draws, where each does so at `rate`."""
    most, chance, total = 0, (1 - rate) ** number, 0.0
    while True:
        total += chance
        if total >= CONFIDENCE or most >= number:
            return most
        chance *= (number - most) / (most + 1) * rate / (1 - rate)
        most += 1


def at_least(found: int, of: int) -> float:
    """The share that is surpassed with 95% confidence, given `found` of `of` (Clopper and Pearson 1934)."""
    if found == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(math.comb(of, k) * middle**k * (1 - middle) ** (of - k) for k in range(found, of + 1))
        low, high = (middle, high) if tail < 0.05 else (low, middle)
    return low


def decide(checks: Sequence[Check], exceeding: int | None, allowed: int, units: int) -> Verdict:
    """The verdict of an audit.

    Args:
        checks: all that ran and did not.
        exceeding: episodes beyond the threshold; None where there is no threshold.
        allowed: the binomial bound.
        units: episodes that were compared.
    """
    leaks = [check.summary for check in checks if check.duplicate]
    if exceeding is not None and exceeding > allowed:
        leaks.append(
            f"{exceeding:,} of {count(units, 'held-out episode')} are nearer to train than chance explains; "
            f"{allowed:,} would be allowed"
        )
    apart = [c for c in checks if c.status == FAILED and not c.duplicate and c.name not in ("near", "shards")]
    others = [f"{c.name}: {c.summary}" for c in apart]
    if leaks:
        return Verdict(word=LEAK, because=(*leaks, *others))
    damaged = [c.summary for c in checks if c.name == "shards" and c.status == FAILED]
    near = [c.summary for c in checks if c.name == "near" and c.status == UNCHECKED]
    if damaged or near or exceeding is None:
        return Verdict(word=UNCLEAR, because=(*damaged, *near, *others))
    return Verdict(
        word=CLEAN,
        because=(
            f"{exceeding:,} of {count(units, 'held-out episode')} exceed the threshold ({allowed:,} "
            "allowed), and no episode, frame or trajectory is in two splits",
            *others,
        ),
    )
