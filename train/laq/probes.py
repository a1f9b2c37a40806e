"""What codes say of actions: linear probes and mutual information, in NumPy.

    r2 = probe(one_hot(train.codes, 8), train.actions, one_hot(val.codes, 8), val.actions)

Probes are fitted on train and judged on held-out environments. Mutual information from few samples is too
large by itself, so what counts is its excess over that of shuffled labels. Its interval is a jackknife's over
groups of episodes, since pairs of one episode are no independent witnesses. (A bootstrap repeats samples,
which raises mutual information by more than the interval is wide.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECTORS = 8
SHUFFLES, GROUPS = 10, 40
"""Of labels; of episodes, at most, each of which the jackknife leaves out once."""
STILL = 0.1
"""Share of the 90th percentile of length, below which an action has no direction."""


class Information(NamedTuple):
    """Normalised mutual information: 0 where one says nothing of the other, 1 where each says all."""

    value: float
    shuffled: float
    """Mean over shuffled labels: what chance alone gives."""
    excess: float
    """`value` - `shuffled`."""
    low: float
    """Of the excess, with 97.5% confidence."""
    high: float
    """The same from above."""


def one_hot(codes: Ints, size: int) -> Floats:
    """Codes [N, n] as [N, n * K] of zeros and ones."""
    found: Floats = np.eye(size)[codes].reshape(len(codes), -1)
    return found


def probe(x: Floats, y: Floats, x_val: Floats, y_val: Floats, ridge: float = 1.0) -> Floats:
    """R2 on val of a linear probe fitted on train, for each column of y; NaN where it does not vary."""
    mean, centre = x.mean(0), y.mean(0)
    design = x - mean
    gram = design.T @ design + ridge * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, design.T @ (y - centre))
    left = ((y_val - centre - (x_val - mean) @ weights) ** 2).sum(0)
    total = ((y_val - y_val.mean(0)) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(total > 1e-12, 1 - left / total, np.nan)
    return found


def directions(actions: Floats) -> Ints:
    """Sector of the first two values of each action, from 1; 0 where they hardly move.

    An action of one value has two directions.
    """
    plane = actions[:, :2] if actions.shape[1] > 1 else np.column_stack([actions[:, 0], 0 * actions[:, 0]])
    length = np.hypot(plane[:, 0], plane[:, 1])
    angle = np.arctan2(plane[:, 1], plane[:, 0])
    sector = np.floor((angle / (2 * np.pi) + 1 / (2 * SECTORS)) * SECTORS).astype(np.int64) % SECTORS
    found: Ints = np.where(length < STILL * np.percentile(length, 90), 0, sector + 1)
    return found


def joint(codes: Ints) -> Ints:
    """One number for each distinct row of codes [N, n]."""
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def nmi(a: Ints, b: Ints) -> float:
    """I(a; b) / sqrt(H(a) H(b)); 0 where one of them never varies."""
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    share = table / table.sum()
    of_a, of_b = entropy(share.sum(1)), entropy(share.sum(0))
    if min(of_a, of_b) <= 0:
        return 0.0
    return float((of_a + of_b - entropy(share.reshape(-1))) / np.sqrt(of_a * of_b))


def entropy(counts: npt.NDArray[np.float64]) -> float:
    """In nats, of counts or shares."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def information(codes: Ints, labels: Ints, episodes: Sequence[str], *, seed: int = 0) -> Information:
    """NMI of codes [N, n] and labels [N], with chance and an interval of what is above it."""
    one = joint(codes)
    generator = np.random.Generator(np.random.PCG64(seed))
    shuffled = [generator.permutation(labels) for _ in range(SHUFFLES)]

    def above(rows: Ints | slice) -> float:
        chance = float(np.mean([nmi(one[rows], other[rows]) for other in shuffled]))
        return nmi(one[rows], labels[rows]) - chance

    value, excess = nmi(one, labels), above(slice(None))
    _, episode = np.unique(np.array(episodes), return_inverse=True)
    error = jackknife(above, episode, generator)
    return Information(value, value - excess, excess, excess - error, excess + error)


def jackknife(statistic: Callable[[Ints], float], episodes: Ints, generator: np.random.Generator) -> float:
    """Half the width of a 95% interval, by leaving out groups of episodes.

    Args:
        statistic: of some rows.
        episodes: [N]: number of the episode that each row is of, from 0.
        generator: puts episodes into groups.

    Returns:
        inf for a single episode, of which nothing follows for others, and where the statistic is not finite.
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
