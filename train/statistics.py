"""Statistics of codes: mutual information with actions, linear probes, and intervals over clusters of pairs.

    units = make_units(batch.environment, batch.key, batch.t)
    jackknife(lambda rows: float(errors[rows].mean()), units.clusters)

Pairs of one episode are not independent, and neither are episodes of one environment. `Units.clusters`
says which pairs belong together, and both intervals and chance go by it: intervals come from leaving out
whole clusters, and chance is what labels of another cluster give. Intervals are by a jackknife. A bootstrap
repeats samples, which makes mutual information and lengths of means too large, and it needs many clusters.

SciPy and scikit-learn give the entropy, Student's quantile and the ridge regression. They have neither chance
that keeps clusters whole nor a jackknife over clusters, no mutual information of thousands of tables at once,
and their R2 of a target that never varies is a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special
from sklearn.linear_model import Ridge

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Features = npt.NDArray[np.floating[Any]]
Strings = npt.NDArray[np.str_]
Statistic = Callable[[Ints], float]
"""Function of rows of samples; NaN if they do not determine its value."""
Over = Literal["environments", "episodes"]

LEVEL = 0.95
"""Confidence of intervals."""
FEWEST_ENVIRONMENTS = 5
"""Minimum number of environments for statements about unseen environments."""
LEAST = 3
"""Minimum number of clusters for an interval."""
SECTORS = 8
"""Number of directions of an action."""
SHUFFLES, GROUPS = 20, 40
"""Number of shuffles of labels, and maximum number of groups of clusters in a jackknife."""
STILL = 0.1
"""Share of the 90th percentile of length below which an action has no direction."""
NEAR_ONE = 1 - 1e-12
"""Largest cosine that has a finite Fisher's z."""
ROUNDING = 1e-9
"""Entropies up to this are 0."""


class Interval(NamedTuple):
    """Bounds of a number with a confidence of LEVEL."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Units:
    """Where each of N rows comes from, which says what rows are independent."""

    environment: Ints
    """[N]: number of the environment; -1 if it is unknown."""
    episode: Ints
    """[N]: number of the episode."""
    t: Ints
    """[N]: step of the episode."""

    def __len__(self) -> int:
        return len(self.episode)

    def __getitem__(self, rows: Ints | npt.NDArray[np.bool_]) -> Units:
        return Units(environment=self.environment[rows], episode=self.episode[rows], t=self.t[rows])

    @property
    def over(self) -> Over:
        """What the clusters are."""
        known = np.unique(self.environment[self.environment >= 0])
        return "environments" if len(known) >= FEWEST_ENVIRONMENTS else "episodes"

    @property
    def clusters(self) -> Ints:
        """[N]: number of the cluster, from 0.

        With FEWEST_ENVIRONMENTS, a cluster is an environment, or an episode whose environment is unknown.
        Fewer do not tell how much environments differ. Then a cluster is an episode, and numbers are of
        these environments alone.
        """
        if self.over == "episodes":
            return numbered(self.episode)
        return numbered(np.where(self.environment >= 0, self.environment, -1 - self.episode))

    def by_episode(self) -> Units:
        """The same rows, with episodes as clusters."""
        return replace(self, environment=np.full_like(self.environment, -1))


class Information(NamedTuple):
    """Normalised mutual information of two variables: 0 if independent, 1 if each determines the other."""

    value: float
    shuffled: float
    """Mean over shuffled labels: the value that chance gives."""
    interval: Interval | None
    """95% interval of the excess; None if there are too few clusters."""

    @property
    def excess(self) -> float:
        """`value` - `shuffled`."""
        return self.value - self.shuffled


def make_units(
    environments: Sequence[str | None] | Strings, episodes: Sequence[str] | Strings, t: npt.NDArray[Any]
) -> Units:
    """Units of samples of one dataset.

    Args:
        environments: environment of each sample; None if it is unknown.
        episodes: key of each sample's episode.
        t: [N]: step of each sample.
    """
    names = np.array([name or "" for name in environments], np.str_)
    return Units(
        environment=np.where(names == "", -1, numbered(names)), episode=numbered(episodes), t=np.asarray(t)
    )


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


def entropy(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Entropies [...] of counts or shares [..., K], in nats."""
    found: Floats = special.entr(counts / counts.sum(-1, keepdims=True)).sum(-1)
    return found


def information(codes: Ints, labels: Ints, units: Units, *, seed: int = 0) -> Information:
    """Normalised mutual information of codes [N, n] and labels [N], and its excess over chance.

    Mutual information from few samples is too large by itself, so only the excess counts.
    """
    labels = numbered(labels)
    measure = _mutual(joint(codes), np.stack([labels, *labels[shuffles(units, SHUFFLES, seed)]]), 0 * labels)

    def normalised(rows: Ints) -> tuple[float, float]:
        shared, chance, of_codes, of_labels = measure(rows)
        scale = math.sqrt(of_codes * of_labels)
        return (shared / scale, chance / scale) if scale > 0 else (0.0, 0.0)

    def excess(rows: Ints) -> float:
        value, chance = normalised(rows)
        return value - chance

    return Information(*normalised(np.arange(len(labels))), jackknife(excess, units.clusters, seed))


def told(
    codes: Ints,
    labels: Ints,
    units: Units,
    seed: int,
    of: Literal["labels", "codes", "both"] = "labels",
    given: Ints | None = None,
) -> Statistic:
    """Share of an entropy that one code and the label have in common, above chance; mean over places.

    It is (I - E) / (H - E), with the mean E of the mutual information I over shuffles: 0 by chance however
    few the pairs are, 1 where one determines the other. That is the adjusted mutual information of Vinh et
    al. (JMLR 2010), with shuffles of whole clusters in place of single pairs.

    Args:
        codes: [N, n]: codes of each pair.
        labels: [N]: label of each pair.
        units: [N]: where each pair comes from.
        seed: seed of the shuffles.
        of: whose entropy H is; `both` is the geometric mean.
        given: [N]: a label that is known before. I, E and H are given it, with `turns` among the pairs of
            one value: what is left is told beyond it.

    Returns:
        A statistic; NaN where H is 0 at every place, or where no two clusters share a label, so that
        shuffles change nothing.
    """
    if len(np.unique(np.stack([labels, units.clusters], 1), axis=0)) == len(np.unique(labels)):
        return lambda rows: math.nan
    labels, known = numbered(labels), np.zeros_like(labels) if given is None else numbered(given)
    if given is None:
        others = shuffles(units, SHUFFLES, seed)
    else:
        others = np.empty((SHUFFLES, len(labels)), np.int64)
        for mine in (np.flatnonzero(known == value) for value in range(int(known.max()) + 1)):
            others[:, mine] = mine[turns(units[mine], SHUFFLES, seed)]
    measures = [_mutual(one, np.stack([labels, *labels[others]]), known) for one in codes.T]

    def statistic(rows: Ints) -> float:
        found = []
        for measure in measures:
            shared, chance, of_codes, of_labels = measure(rows)
            whole = {"labels": of_labels, "codes": of_codes, "both": math.sqrt(of_codes * of_labels)}[of]
            if whole > ROUNDING:
                found.append((shared - chance) / (whole - chance) if whole - chance > ROUNDING else 0.0)
        return float(np.mean(found)) if found else math.nan

    return statistic


def _mutual(codes: Ints, labels: Ints, known: Ints) -> Callable[[Ints], tuple[float, float, float, float]]:
    """Mutual information of codes [N] and labels [1 + S, N] given what is known [N], in nats.

    Args:
        codes: code of each pair.
        labels: from 0: the labels as they are, and S times those of other pairs.
        known: from 0: 0 for all pairs where nothing is known.

    Returns:
        A function of rows: mutual information, its mean over shuffles, entropy of codes, entropy of labels.
    """
    codes = numbered(codes)
    shape = len(labels), int(known.max()) + 1, int(codes.max()) + 1, int(labels.max()) + 1
    cells = ((np.arange(shape[0])[:, None] * shape[1] + known) * shape[2] + codes) * shape[3] + labels

    def measure(rows: Ints) -> tuple[float, float, float, float]:
        tables = np.bincount(np.take(cells, rows, 1).ravel(), minlength=math.prod(shape)).reshape(shape)

        def of(*summed: int) -> Floats:
            """Entropy of each table, summed over some axes, beyond that of what is known; 0 may be off by a
            rounding, and has a root."""
            whole = entropy(tables.sum(summed).reshape(shape[0], -1))
            return np.maximum(whole - entropy(tables.sum((2, 3))), 0.0)

        of_codes, of_labels = of(3), of(2)
        shared = of_codes + of_labels - of()
        return float(shared[0]), float(shared[1:].mean()), float(of_codes[0]), float(of_labels[0])

    return measure


def shuffles(units: Units, count: int, seed: int) -> Ints:
    """Rows [count, N] from which each row takes its codes or labels: those of another cluster.

    Clusters stand in a random circle, and each takes from the one before it. Each of its episodes takes
    from one episode, in the order of time, from a random step on. So codes of an episode and an environment
    stay as alike as they are, and only their relation to everything else is lost. A shuffle of single pairs
    would count this likeness as information.
    """
    clusters = units.clusters
    _, firsts, episode = np.unique(units.episode, return_index=True, return_inverse=True)
    cluster_of = clusters[firsts]
    rows = np.lexsort((units.t, episode))
    generator = np.random.Generator(np.random.PCG64(seed))
    found = np.empty((count, len(units)), np.int64)
    for shuffle in found:
        circle = generator.permutation(int(clusters.max()) + 1)
        giver = np.empty_like(circle)
        giver[circle] = np.roll(circle, 1)
        order = np.lexsort((generator.random(len(cluster_of)), cluster_of))
        of_episode = np.empty_like(order)
        of_episode[order] = order[_dealt(cluster_of[order], giver, np.zeros_like(giver))]
        begin = generator.integers(0, 1 << 30, len(of_episode))
        shuffle[rows] = rows[_dealt(episode[rows], of_episode, begin)]
    return found


def turns(units: Units, count: int, seed: int) -> Ints:
    """Rows [count, N] from which each row takes its labels; each gives once.

    Clusters stand in a random circle, one episode after another, each in the order of time. The circle is
    turned against itself by a third to two thirds, so that nearly all take from another cluster. `shuffles`
    keeps clusters whole instead, and repeats the rows of one that gives to a larger one. Where clusters have
    few rows, repeats look like information.
    """
    clusters = units.clusters
    generator = np.random.Generator(np.random.PCG64(seed))
    found = np.empty((count, len(units)), np.int64)
    for turned in found:
        place, then = (generator.random(int(one.max(initial=-1)) + 1) for one in (clusters, units.episode))
        order = np.lexsort((units.t, then[units.episode], place[clusters]))
        turned[order] = np.roll(order, generator.integers(len(units) // 3, 2 * len(units) // 3 + 1))
    return found


def _dealt(groups: Ints, giver: Ints, begin: Ints) -> Ints:
    """Places [N] from which the members of sorted groups [N] take.

    Member k of group g takes from member `begin[g]` + k of group `giver[g]`; its first follows its last.
    """
    sizes = np.bincount(groups, minlength=len(giver))
    starts = np.cumsum(sizes) - sizes
    member = np.arange(len(groups)) - starts[groups] + begin[groups]
    found: Ints = starts[giver[groups]] + member % sizes[giver[groups]]
    return found


def ridge(x: Features, y: Floats, x_new: Features, penalty: float | Floats = 1.0) -> Floats:
    """Predictions [M, A] from x_new [M, D] of a ridge regression that is fitted to x [N, D] and y [N, A].

    Args:
        x: features to fit to.
        y: targets.
        x_new: features to predict from.
        penalty: of all targets, or [A] of each.
    """
    found: Floats = Ridge(penalty).fit(x, y).predict(x_new)
    return found.reshape(len(x_new), -1)  # of a single target it has one axis


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


def jackknife(statistic: Statistic, clusters: Ints, seed: int = 0) -> Interval | None:
    """Interval around the value of all rows, from the values without each cluster; None for too few clusters.

    It is Student's, with as many degrees of freedom as clusters, less one. Clusters of unequal size count as
    fewer: 1 / (sum of squared shares) of equal size vary as much (Carter, Schnepel and Steigerwald, Review of
    Economics and Statistics 2017). More than GROUPS clusters are left out in GROUPS groups.

    Args:
        statistic: of rows.
        clusters: [N]: number of each row's cluster, from 0.
        seed: seed of the groups.
    """
    number = int(clusters.max(initial=-1)) + 1
    if number < LEAST:
        return None
    groups = min(GROUPS, number)
    group = np.random.Generator(np.random.PCG64(seed)).permutation(number)[clusters] % groups
    without = np.array([statistic(np.flatnonzero(group != g)) for g in range(groups)])
    value = statistic(np.arange(len(clusters)))
    if not (np.isfinite(without).all() and math.isfinite(value)):
        return None
    error = math.sqrt((groups - 1) / groups * float(((without - without.mean()) ** 2).sum()))
    equal = 1 / float(((np.bincount(group) / len(group)) ** 2).sum())
    error *= student(max(1.0, equal - 1))
    return Interval(value - error, value + error)


def jackknife_cosine(statistic: Statistic, clusters: Ints, seed: int = 0) -> Interval | None:
    """The `jackknife` of a cosine: of Fisher's z, which varies alike wherever it is; within -1 and 1."""

    def z(rows: Ints) -> float:
        return float(np.arctanh(np.clip(statistic(rows), -NEAR_ONE, NEAR_ONE)))

    found = jackknife(z, clusters, seed)
    return None if found is None else Interval(math.tanh(found.low), math.tanh(found.high))


def student(freedom: float) -> float:
    """Half the width of an interval of LEVEL, in standard errors with the given degrees of freedom."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))
