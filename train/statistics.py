"""Statistics of codes: mutual information with actions, linear probes, and intervals over clusters of pairs.

    units = make_units(batch.environment, batch.key, batch.t)
    jackknife(lambda rows: float(errors[rows].mean()), units.clusters)

Pairs of one episode are not independent, and neither are episodes of one environment. `Units.clusters`
says which pairs belong together, and both intervals and chance go by it: intervals come from leaving out
whole clusters, and chance is what labels of another cluster give. Intervals are by a jackknife. A bootstrap
repeats samples, which makes mutual information and lengths of means too large, and it needs many clusters.

Training needs only NumPy here. SciPy and scikit-learn have an entropy, a mutual information and a ridge
regression too, but are optional here, and their results differ in the last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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
    excess: float
    """`value` - `shuffled`."""
    interval: Interval | None
    """95% interval of the excess; None if there are too few clusters."""


def make_units(environments: Sequence[str | None], episodes: Sequence[str], t: npt.NDArray[Any]) -> Units:
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


def entropy(counts: npt.NDArray[Any]) -> float:
    """Entropy of counts or shares, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def information(codes: Ints, labels: Ints, units: Units, *, seed: int = 0) -> Information:
    """Normalised mutual information of codes [N, n] and labels [N], and its excess over chance.

    Mutual information from few samples is too large by itself, so only the excess counts.
    """
    measure = _mutual(joint(codes), _assigned(labels, shuffles(units, SHUFFLES, seed)))

    def normalised(rows: Ints) -> tuple[float, float]:
        shared, chance, of_codes, of_labels = measure(rows)
        scale = math.sqrt(of_codes * of_labels)
        return (shared / scale, chance / scale) if scale > 0 else (0.0, 0.0)

    def excess(rows: Ints) -> float:
        value, chance = normalised(rows)
        return value - chance

    value, chance = normalised(np.arange(len(labels)))
    return Information(value, chance, value - chance, jackknife(excess, units.clusters, seed))


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
        given: [N]: a label that is known before. I, E and H are their means over its values then, with
            `turns` among the pairs of one value: what is left is told beyond it.

    Returns:
        A statistic; NaN where H is 0 at every place, or where no two clusters share a label, so that
        shuffles change nothing.
    """
    if len(np.unique(np.stack([labels, units.clusters], 1), axis=0)) == len(np.unique(labels)):
        return lambda rows: math.nan
    part = np.zeros_like(labels) if given is None else numbered(given)
    members = [np.flatnonzero(part == i) for i in range(int(part.max(initial=-1)) + 1)]
    member = np.empty_like(part)
    for mine in members:
        member[mine] = np.arange(len(mine))
    shuffle = shuffles if given is None else turns
    assigned = [_assigned(labels[mine], shuffle(units[mine], SHUFFLES, seed)) for mine in members]
    measures = [
        [_mutual(codes[mine, i], own) for mine, own in zip(members, assigned, strict=True)]
        for i in range(codes.shape[1])
    ]

    def statistic(rows: Ints) -> float:
        inside = [member[rows[part[rows] == i]] for i in range(len(members))]
        found = []
        for each in measures:
            parts = [np.array(one(own)) * len(own) for one, own in zip(each, inside, strict=True) if len(own)]
            shared, chance, of_codes, of_labels = np.sum(parts, 0) / len(rows)
            whole = {"labels": of_labels, "codes": of_codes, "both": math.sqrt(of_codes * of_labels)}[of]
            if whole > 0:
                found.append((shared - chance) / (whole - chance) if whole - chance > 1e-9 else 0.0)
        return float(np.mean(found)) if found else math.nan

    return statistic


def _assigned(labels: Ints, shuffled: Ints) -> Ints:
    """Labels [1 + S, N] from 0: as they are, and those of the rows `shuffled` [S, N]."""
    labels = numbered(labels)
    return np.concatenate([labels[None], labels[shuffled]])


def _mutual(codes: Ints, labels: Ints) -> Callable[[Ints], tuple[float, float, float, float]]:
    """Mutual information of codes [N] and labels [1 + S, N] of `_assigned`, in nats.

    Returns:
        A function of rows: mutual information, its mean over shuffles, entropy of codes, entropy of labels.
    """
    codes = numbered(codes)
    shape = len(labels), int(codes.max()) + 1, int(labels.max()) + 1
    cells = (np.arange(shape[0])[:, None] * shape[1] + codes) * shape[2] + labels

    def measure(rows: Ints) -> tuple[float, float, float, float]:
        tables = np.bincount(np.take(cells, rows, 1).ravel(), minlength=math.prod(shape)).reshape(shape)
        of_codes, of_labels = _entropies(tables[:1].sum(2)), _entropies(tables.sum(1))
        shared = of_codes + of_labels - _entropies(tables.reshape(shape[0], -1))
        return float(shared[0]), float(shared[1:].mean()), float(of_codes[0]), float(of_labels[0])

    return measure


def _entropies(counts: Ints) -> Floats:
    """Entropies [S] of counts [S, M] of one total, in nats."""
    total = counts[0].sum()
    found = np.log(total) - (counts * np.log(np.maximum(counts, 1))).sum(1) / total
    varies: Floats = np.where((counts > 0).sum(1) > 1, found, 0.0)  # exactly 0, without an error of rounding
    return varies


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
    """Half the width of an interval of LEVEL, in standard errors with the given degrees of freedom, from 1.

    It is Student's quantile. Of t = sqrt(freedom) tan(angle), the angle has the density cos^(freedom - 1).
    """
    angle = np.linspace(0, np.pi / 2, 10_001)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(LEVEL, below / below[-1], angle))
