"""Success rates with intervals, and the comparison of two policies from the same starts.

    rate_of(success, environment)                  # 0.62, 0.55 to 0.69 over 20 environments
    difference_of(success_a, success_b, environment)

Episodes of one environment are alike, so with FEWEST_ENVIRONMENTS an interval goes over environments: it is
Wilson's, of as many independent episodes as vary as much (n divided by the design effect, Korn and Graubard,
Survey Methodology 1998), with Student's quantile for the number of environments. Wilson's interval stays
within 0 and 1 and has a width where all episodes end alike. With fewer environments it is Wilson's over
episodes and holds for these environments alone.

Paired differences have an interval by the jackknife and two tests: McNemar's, which takes episodes as
independent, and a sign-flip test of whole environments, which does not. The latter is exact for any number of
environments, because sums of integers have a distribution that can be computed. SciPy has Wilson's interval
and McNemar's test for independent episodes alone, and only random sign flips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oxcart.train.statistics import (
    FEWEST_ENVIRONMENTS,
    LEVEL,
    Interval,
    Ints,
    Over,
    jackknife,
    numbered,
    student,
)

Won = npt.NDArray[np.bool_]

NORMAL = student(math.inf)
"""Half the width of an interval of LEVEL, in standard errors of a normal distribution."""
METHOD = (
    f"{LEVEL:.0%} Wilson intervals, over environments where there are {FEWEST_ENVIRONMENTS} (design effect, "
    "Student), else over episodes and of these environments alone"
)


@dataclass(frozen=True, kw_only=True)
class SuccessRate:
    """Share of episodes that succeed."""

    successes: int
    episodes: int
    interval: Interval
    over: Over
    """What the interval goes over."""
    environments: int
    """Number of environments."""

    @property
    def value(self) -> float:
        """The share."""
        return self.successes / self.episodes


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Success of policy A less that of policy B, from the same starts."""

    episodes: int
    only_a: int
    """Number of starts from which only A succeeds."""
    only_b: int
    interval: Interval | None
    """Interval of the difference, over what `over` says; None if it cannot be told."""
    over: Over
    environments: int
    mcnemar: float
    """p-value of McNemar's exact test, two-sided; takes episodes as independent."""
    flipped: float
    """p-value of the sign-flip test of what `over` says, two-sided."""

    @property
    def value(self) -> float:
        """The difference of the shares."""
        return (self.only_a - self.only_b) / self.episodes


def wilson(successes: float, episodes: float, quantile: float = NORMAL) -> Interval:
    """Wilson's score interval of a share (JASA 1927).

    Args:
        successes: number of successes; a fraction for an effective number of episodes.
        episodes: number of independent episodes.
        quantile: half the width of the interval in standard errors.
    """
    share, spread = successes / episodes, quantile**2 / episodes
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    # The exact bound is 1; rounding would leave 0.9999999999999999. That of no success is 0 as it is.
    return Interval(middle - half, 1.0 if successes == episodes else middle + half)


def rate_of(success: Won, environments: Sequence[str | None]) -> SuccessRate:
    """Success rate of episodes [N], with its interval.

    Args:
        success: [N]: whether each episode succeeded.
        environments: [N]: environment of each; None if it has none.
    """
    clusters, over = _clusters(environments)
    successes, episodes = int(success.sum()), len(success)
    interval = wilson(successes, episodes)
    if over == "environments":
        effect, freedom = design_effect(success, clusters)
        interval = wilson(successes / effect, episodes / effect, student(freedom))
    return SuccessRate(
        successes=successes,
        episodes=episodes,
        interval=interval,
        over=over,
        environments=len({name for name in environments if name is not None}),
    )


def design_effect(success: Won, clusters: Ints) -> tuple[float, float]:
    """Variance of the share as a multiple of that of independent episodes, and its degrees of freedom.

    The multiple is at least 1; it is 1 where all episodes end alike, since then nothing tells how alike those
    of one cluster are. Clusters of unequal size have the freedom of fewer, as in `jackknife`.

    Args:
        success: [N]: whether each episode succeeded.
        clusters: [N]: number of each episode's cluster, from 0.
    """
    sizes = np.bincount(clusters).astype(np.float64)
    share, count = float(success.mean()), len(sizes)
    freedom = max(1.0, 1 / float(((sizes / len(success)) ** 2).sum()) - 1)
    independent = share * (1 - share) / len(success)
    if independent == 0:
        return 1.0, freedom
    residuals = np.bincount(clusters, success) - sizes * share
    variance = count / (count - 1) * float((residuals**2).sum()) / len(success) ** 2
    return max(1.0, variance / independent), freedom


def difference_of(a: Won, b: Won, environments: Sequence[str | None]) -> Paired:
    """Compare two policies by the outcomes [N] of the same starts.

    Args:
        a: [N]: whether A succeeded.
        b: [N]: whether B succeeded from the same start.
        environments: [N]: environment of each start; None if it has none.
    """
    clusters, over = _clusters(environments)
    apart = a.astype(np.int64) - b.astype(np.int64)
    only_a, only_b = int((apart > 0).sum()), int((apart < 0).sum())
    interval = jackknife(lambda rows: float(apart[rows].mean()), clusters) if only_a + only_b else None
    return Paired(
        episodes=len(a),
        only_a=only_a,
        only_b=only_b,
        interval=None if interval is None else Interval(max(-1.0, interval.low), min(1.0, interval.high)),
        over=over,
        environments=len({name for name in environments if name is not None}),
        mcnemar=sign_flip(apart),
        flipped=sign_flip(np.bincount(clusters, apart).astype(np.int64)),
    )


def sign_flip(differences: Ints) -> float:
    """p-value of the sum of integers [K], two-sided, when each may as well have the other sign.

    It is exact: the distribution of the sum over all signs is a product of polynomials. Of differences of
    single episodes, it is McNemar's exact test.
    """
    sizes = np.abs(differences[differences != 0])
    shares = np.ones(1)
    for size in sizes.tolist():
        wider = np.zeros(len(shares) + 2 * size)
        wider[: len(shares)] += shares / 2
        wider[2 * size :] += shares / 2
        shares = wider
    sums = np.arange(len(shares)) - int(sizes.sum())
    return min(1.0, float(shares[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def _clusters(environments: Sequence[str | None]) -> tuple[Ints, Over]:
    """Number of the cluster of each episode, from 0, and what the clusters are.

    An episode without an environment is a cluster of its own.
    """
    if len({name for name in environments if name is not None}) < FEWEST_ENVIRONMENTS:
        return np.arange(len(environments)), "episodes"
    return numbered([f"{i}" if name is None else f"/{name}" for i, name in enumerate(environments)]), (
        "environments"
    )
