"""Statistics of codes: entropy, mutual information with actions, linear probes, and intervals over episodes.

    r2 = probe(one_hot(train.codes, 8), train.actions, one_hot(val.codes, 8), val.actions)

Pairs of one episode are not independent, so every interval is over episodes. There are two kinds. The
bootstrap repeats episodes. That is right for means and for sums that leave out products within an episode. It
is wrong for mutual information and for lengths of means: noise makes both too large, and repeats make them
larger still. Those get a jackknife over groups of episodes.

Training needs only NumPy here. SciPy and scikit-learn have an entropy, a mutual information and a ridge
regression too, but are optional here, and their results differ in the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Statistic = Callable[[Ints], float]
"""Function of rows of samples; NaN if they do not determine its value."""

LEVEL = 0.95
"""Confidence of intervals."""
NORMAL = 1.959963984540054
"""Half the width of a normal interval of LEVEL, in standard errors."""
LEAST = 3
"""Minimum number of episodes for an interval."""
RESAMPLES, MEAN_RESAMPLES = 200, 1000
"""Number of bootstrap draws: for any statistic, and for means, which cost less."""
SECTORS = 8
"""Number of directions of an action."""
SHUFFLES, GROUPS = 10, 40
"""Number of shuffles of labels, and maximum number of groups of episodes in a jackknife."""
STILL = 0.1
"""Share of the 90th percentile of length below which an action has no direction."""


class Interval(NamedTuple):
    """Bounds of a number with a confidence of LEVEL."""

    low: float
    high: float


class Information(NamedTuple):
    """Normalised mutual information of two variables: 0 if independent, 1 if each determines the other."""

    value: float
    shuffled: float
    """Mean over shuffled labels: the value that chance gives."""
    excess: float
    """`value` - `shuffled`."""
    low: float
    """Lower bound of the excess's 95% interval."""
    high: float
    """Upper bound of the excess's 95% interval."""


def numbered(names: npt.NDArray[Any] | Sequence[str]) -> Ints:
    """Numbers [N] from 0 for names [N], in sorted order."""
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def joint(codes: Ints) -> Ints:
    """Numbers [N] from 0, one for each distinct row of codes [N, n]."""
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def one_hot(codes: Ints, size: int) -> Floats:
    """Codes [N, n] as [N, n * K] of zeros and ones."""
    found: Floats = np.eye(size)[codes].reshape(len(codes), -1)
    return found


def entropy(counts: npt.NDArray[Any]) -> float:
    """Entropy of counts or shares, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def nmi(a: Ints, b: Ints) -> float:
    """Normalised mutual information I(a; b) / sqrt(H(a) H(b)); 0 if one of them never varies."""
    a, b = numbered(a), numbered(b)
    shape = int(a.max()) + 1, int(b.max()) + 1
    share = np.bincount(a * shape[1] + b, minlength=math.prod(shape)).reshape(shape) / len(a)
    of_a, of_b = entropy(share.sum(1)), entropy(share.sum(0))
    if min(of_a, of_b) <= 0:
        return 0.0
    return float((of_a + of_b - entropy(share.reshape(-1))) / np.sqrt(of_a * of_b))


def information(codes: Ints, labels: Ints, episodes: Sequence[str], *, seed: int = 0) -> Information:
    """Normalised mutual information of codes [N, n] and labels [N], and its excess over shuffled labels.

    Mutual information from few samples is too large by itself, so only the excess counts.
    """
    one = joint(codes)
    generator = np.random.Generator(np.random.PCG64(seed))
    shuffled = [generator.permutation(labels) for _ in range(SHUFFLES)]

    def above(rows: Ints | slice) -> float:
        chance = float(np.mean([nmi(one[rows], other[rows]) for other in shuffled]))
        return nmi(one[rows], labels[rows]) - chance

    value, excess = nmi(one, labels), above(slice(None))
    error = jackknife_error(above, numbered(episodes), generator)
    return Information(value, value - excess, excess, excess - error, excess + error)


def probe(x: Floats, y: Floats, x_val: Floats, y_val: Floats, ridge: float = 1.0) -> Floats:
    """R2 on val of a linear probe fitted on train, for each column of y; see `r2`."""
    mean, centre = x.mean(0), y.mean(0)
    design = x - mean
    gram = design.T @ design + ridge * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, design.T @ (y - centre))
    return r2(y_val, y_val - centre - (x_val - mean) @ weights)


def r2(target: Floats, errors: Floats) -> Floats:
    """R2 of each column of a target [N, A] given errors [N, A] of a prediction; NaN where it never varies."""
    left = (errors**2).sum(0)
    total = ((target - target.mean(0)) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(total > 1e-12, 1 - left / total, np.nan)
    return found


def plane(values: Floats) -> Floats:
    """The first two columns [N, 2] of values [N, A]; a single column gets zeros beside it."""
    return values[:, :2] if values.shape[1] > 1 else np.column_stack([values[:, 0], np.zeros(len(values))])


def directions(actions: Floats) -> Ints:
    """Sector of the first two values of each action, from 1; 0 where they hardly move.

    An action of one value has two directions.
    """
    x, y = plane(actions).T
    length = np.hypot(x, y)
    sector = np.floor((np.arctan2(y, x) / (2 * np.pi) + 1 / (2 * SECTORS)) * SECTORS).astype(np.int64)
    found: Ints = np.where(length < STILL * np.percentile(length, 90), 0, sector % SECTORS + 1)
    return found


def bootstrap(statistic: Statistic, episodes: Ints, seed: int) -> Interval | None:
    """Percentiles of a bootstrap over episodes, widened for few of them; None where there are too few.

    Args:
        statistic: of rows, some of which may repeat.
        episodes: [N]: the episode of each row.
        seed: seed of the draws.
    """
    names, episode = np.unique(episodes, return_inverse=True)
    if len(names) < LEAST:
        return None
    order = np.argsort(episode, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(episode))[:-1])
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.integers(0, len(names), (RESAMPLES, len(names)))
    values = np.array([statistic(np.concatenate([rows_of[i] for i in numbers])) for numbers in drawn])
    values = values[np.isfinite(values)]
    value = statistic(np.arange(len(episodes)))
    if len(values) < RESAMPLES // 2 or not math.isfinite(value):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # Resamples of E episodes spread by sqrt((E - 1) / E) less than the truth, and by Student's distribution.
    wider = _widened(len(names)) * math.sqrt(len(names) / (len(names) - 1))
    return Interval(float(value + wider * (low - value)), float(value + wider * (high - value)))


def jackknife(statistic: Statistic, episodes: Ints, seed: int) -> Interval | None:
    """Interval around the value of all rows by a jackknife; None where there are too few episodes."""
    episode = numbered(episodes)
    number = int(episode.max(initial=-1)) + 1
    if number < LEAST:
        return None
    error = jackknife_error(statistic, episode, np.random.Generator(np.random.PCG64(seed)))
    if not math.isfinite(error):
        return None
    value = statistic(np.arange(len(episodes)))
    error *= _widened(min(GROUPS, number))
    return Interval(value - error, value + error)


def jackknife_error(statistic: Statistic, episodes: Ints, generator: np.random.Generator) -> float:
    """Half the width of a normal 95% interval, by leaving out groups of episodes.

    Args:
        statistic: of some rows.
        episodes: [N]: number of the episode of each row, from 0.
        generator: puts episodes into groups.

    Returns:
        inf for a single episode, which says nothing of others, and where the statistic is not finite.
    """
    count = int(episodes.max()) + 1
    groups = min(GROUPS, count)
    if groups < 2:
        return math.inf
    group = generator.permutation(count)[episodes] % groups
    without = np.array([statistic(np.flatnonzero(group != g)) for g in range(groups)])
    if not np.isfinite(without).all():
        return math.inf
    return 1.96 * math.sqrt((groups - 1) / groups * float(((without - without.mean()) ** 2).sum()))


def student(freedom: int) -> float:
    """Half the width of an interval of LEVEL, in standard errors with the given degrees of freedom."""
    from scipy import stats  # of the extra `evaluate`: training has no such interval

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def _widened(units: int) -> float:
    """Factor by which an interval from few units is wider than a normal interval."""
    return student(units - 1) / NORMAL


def mean_resamples(episodes: Sequence[str]) -> Floats:
    """Times [MEAN_RESAMPLES, N] that each sample occurs in each bootstrap draw of whole episodes."""
    places = {name: i for i, name in enumerate(dict.fromkeys(episodes))}
    draws = np.random.default_rng(0).integers(len(places), size=(MEAN_RESAMPLES, len(places)))
    times = np.stack([np.bincount(draw, minlength=len(places)) for draw in draws])
    return times[:, [places[name] for name in episodes]].astype(np.float64)


def mean_interval(values: Floats, draws: Floats) -> Interval:
    """95% interval of the mean of values [N], from the draws of `mean_resamples`."""
    low, high = np.percentile((draws @ values) / draws.sum(1), [2.5, 97.5])
    return Interval(float(low), float(high))
