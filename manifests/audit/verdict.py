"""From scores to a verdict: the null distribution, the threshold, how many may exceed it, and one word.

The unit is a held-out episode; its score is the best one against train. The null is the distribution of such
scores where nothing leaks: each train episode's best score against train without its own environment.

Episodes of one environment are not independent: a kitchen that resembles another raises the scores of all its
episodes. So the threshold is the larger of two values. One is exceeded by 0.1% of the null. The other is the
upper prediction bound, at the same rate, for the highest score of one more environment, given the highest
scores of those of train (Student's t after Fisher's transform). With few environments that bound approaches
1, copies no longer exceed it, and nothing is concluded. Environments of train that stand out from the others,
as one kitchen under two names does, are left out of the null, and named.

The number of held-out episodes that may exceed the threshold is the 99% bound for new draws from the same
distribution, which accounts for the threshold being estimated from a sample as well. The verdict is a leak if
more exceed it, overall or in one split of one dataset, or if there is any exact duplicate.

Short of a leak, evidence can still speak against the split: all held-out scores lie beyond the whole null, a
held-out environment looks like one of train and no other (`place`), or train tells what comes next in it
(`copy_ahead`). Then the verdict is suspicious, and says what would settle it. The limits of all three come
from simulated kitchens, as `twins` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.result import FAILED, SUSPICIOUS, UNCHECKED, Check, count

LEAK, SUSPECT, CLEAN, UNCLEAR = "leak", "suspicious", "clean", "not checked"
DECIDING = ("places", "near", "copy-ahead")
"""Checks whose suspicion makes the verdict suspicious: their evidence is of the split, not of the audit."""
APART_AFTER_ALL = (
    "if they show different places, the split can stand: keep the page as evidence, and audit with "
    "--fail-on leak"
)
"""What to do about a suspicion that turned out wrong."""

RATE = 0.001
"""Share of the null above the threshold."""
CONFIDENCE = 0.99
"""Confidence of the bound on the number that may exceed the threshold."""
DIGITS = 4
"""Digits to which scores are rounded."""


T_QUANTILES = (318.31, 22.327, 10.215, 7.173, 5.893, 5.208, 4.785, 4.501, 4.297, 4.144)
"""One-sided quantiles of Student's t for a rate of 0.1%, with 1 to 10 degrees of freedom."""
APART = 5.0
"""Robust deviations above which an environment stands out."""
LEAST_SPREAD = 0.05
"""Least deviation (of Fisher transforms) of the highest scores of environments. Two that resemble each other
have one highest score, so among four of train a smaller deviation is chance."""
FEW = 5
"""Minimum number of environments for any to stand out."""
BEYOND = 2.6
"""Distance of all held-out scores from the whole null (Fisher transforms, times the number of environments of
the null) that 1 in 500 environments without a twin reach."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The score above which a resemblance is not due to chance."""

    value: float
    """Score above which an episode counts as exceeding, rounded to `DIGITS` like the scores."""
    beyond: int
    """Number of null scores above the threshold."""
    null: int
    """Number of episodes in the null."""
    how: str
    """How the threshold was determined, for people."""
    apart: tuple[int, ...]
    """Environments of train whose scores stand out from the others."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict of an audit, with its reasons."""

    word: str
    """`leak`, `suspicious`, `clean` or `not checked`."""
    because: tuple[str, ...]
    """Reasons as sentences, most important first."""
    complete: bool = True
    """Whether everything was compared that a clean verdict needs."""


def threshold(null: npt.NDArray[np.float32], environments: npt.NDArray[np.int64]) -> Threshold:
    """Determine the threshold from a null distribution.

    Args:
        null: scores [n], at least two.
        environments: environment [n] of the episode of each score.
    """
    spread = np.arctanh(np.clip(null.astype(np.float64), -0.999, 0.9999))
    names = np.unique(environments)
    peaks = np.array([spread[environments == name].max() for name in names])
    apart: tuple[int, ...] = ()
    if len(names) >= FEW:
        middle = float(np.median(peaks))
        deviation = max(1.4826 * float(np.median(np.abs(peaks - middle))), LEAST_SPREAD)
        fence = middle + APART * deviation
        apart = tuple(names[peaks > fence].tolist())
        spread = spread[~np.isin(environments, apart)]
        peaks = peaks[peaks <= fence]
    scores = np.sort(np.tanh(spread))[::-1]
    number = len(scores)
    value = float(scores[int(RATE * number)])
    how = (
        f"{RATE:.1%} of {number:,} null scores"
        if RATE * number >= 1
        else f"the largest of {number:,} null scores"
    )
    if len(peaks) > 1:
        spread_of = max(float(peaks.std(ddof=1)), LEAST_SPREAD)
        margin = _student(len(peaks) - 1) * spread_of * math.sqrt(1 + 1 / len(peaks))
        reach = math.tanh(float(peaks.mean()) + margin)
        if reach > value:
            value = reach
            of = f"from {len(peaks):,} of train"
            how = f"the {1 - RATE:.1%} bound for the best score of one more environment, {of}"
    value = round(value, DIGITS)
    return Threshold(value=value, beyond=int(exceeds(scores, value).sum()), null=number, how=how, apart=apart)


def exceeds(scores: npt.NDArray[np.floating[Any]], value: float) -> npt.NDArray[np.bool_]:
    """Whether each score is above a threshold, compared with the digits that are reported."""
    above: npt.NDArray[np.bool_] = np.round(scores.astype(np.float64), DIGITS) > value
    return above


def beyond(
    best: npt.NDArray[np.float32],
    null: npt.NDArray[np.float32],
    environments: npt.NDArray[np.int64],
    limit: Threshold,
) -> float:
    """How far all held-out scores lie beyond the whole null, to be compared with `BEYOND`.

    Args:
        best: scores of the held-out episodes.
        null: scores [n] of the null.
        environments: environment [n] of the episode of each score.
        limit: the threshold, which names the environments that are left out of the null.
    """
    kept = ~np.isin(environments, limit.apart)
    lowest, highest = (math.atanh(min(float(score), 0.9999)) for score in (best.min(), null[kept].max()))
    return (lowest - highest) * len(np.unique(environments[kept]))


def _student(freedom: int) -> float:
    """The quantile of Student's t for `RATE`, from a table, then by Abramowitz and Stegun 26.7.5."""
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = NormalDist().inv_cdf(1 - RATE)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def bound(number: int, null: int, beyond: int, confidence: float = CONFIDENCE) -> int:
    """Upper bound, at a confidence, on how many of `number` new draws exceed what `beyond` of `null` exceed.

    The threshold is the next lower score of the null. So the number that exceed it has a negative
    hypergeometric distribution, whatever the distribution of the scores.
    """

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    if beyond >= null:
        return number
    every = log_choose(number + null, number)
    total = 0.0
    for most in range(number + 1):
        above = log_choose(most + beyond, beyond)
        below = log_choose(number - most + null - beyond - 1, number - most)
        total += math.exp(above + below - every)
        if total >= confidence:
            return most
    return number


def at_least(found: int, of: int) -> float:
    """Lower bound of a share at 95% confidence, given `found` of `of` (Clopper and Pearson 1934)."""
    if found == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = sum(math.comb(of, k) * middle**k * (1 - middle) ** (of - k) for k in range(found, of + 1))
        low, high = (middle, high) if tail < 0.05 else (low, middle)
    return low


def decide(
    checks: Sequence[Check],
    exceeding: int | None,
    allowed: int,
    units: int,
    *,
    groups: Sequence[str] = (),
    blind: Sequence[str] = (),
) -> Verdict:
    """The verdict of an audit.

    Args:
        checks: all checks, including those that did not run.
        exceeding: number of episodes above the threshold; None if there is no threshold.
        allowed: number that may exceed the threshold by chance.
        units: number of episodes compared.
        groups: one sentence per split of a dataset in which too many exceed the threshold.
        blind: kinds of planted leaks that this audit misses although every audit should find them.
    """
    leaks = [check.summary for check in checks if check.duplicate]
    if exceeding is not None and exceeding > allowed:
        leaks.append(
            f"{exceeding:,} of {count(units, 'held-out episode')} are nearer to train than chance explains; "
            f"{allowed:,} would be allowed"
        )
    leaks += groups
    apart = [c for c in checks if c.status == FAILED and not c.duplicate and c.name not in ("near", "shards")]
    others = [f"{c.name}: {c.summary}" for c in apart]
    if leaks:
        return Verdict(word=LEAK, because=(*leaks, *others))
    damaged = [c.summary for c in checks if c.name == "shards" and c.status == FAILED]
    near = [c.summary for c in checks if c.name == "near" and c.status == UNCHECKED]
    unseen = [f"this audit is blind here: it misses planted copies ({', '.join(blind)})"] if blind else []
    suspects = [c for name in DECIDING for c in checks if c.name == name and c.status == SUSPICIOUS]
    found = [f"{c.name}: {c.summary}" for c in suspects]
    if suspects and not damaged:
        advice = (f"to settle it, {suspects[0].settle}", APART_AFTER_ALL)
        because = (*found, *advice, *near, *unseen, *others)
        return Verdict(word=SUSPECT, because=because, complete=not (near or unseen))
    if damaged or near or unseen or exceeding is None:
        return Verdict(word=UNCLEAR, because=(*damaged, *found, *near, *unseen, *others), complete=False)
    return Verdict(
        word=CLEAN,
        because=(
            f"{exceeding:,} of {count(units, 'held-out episode')} exceed the threshold ({allowed:,} "
            "allowed), and no episode, frame or trajectory that was compared is in two splits",
            *others,
        ),
    )
