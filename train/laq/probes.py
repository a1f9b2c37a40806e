"""What codes say of actions: linear probes and mutual information, in NumPy.

    r2 = probe(one_hot(train.codes, 8), train.actions, one_hot(val.codes, 8), val.actions)

Probes are fitted on train and judged on held-out environments. Mutual information from few samples is too
large by itself; so it stands beside that of shuffled labels, and its interval comes from resampling whole
episodes, since pairs of one episode are no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECTORS = 8
STILL = 0.1
"""Share of the 90th percentile of length, below which an action has no direction."""


class Information(NamedTuple):
    """Normalised mutual information: 0 where one says nothing of the other, 1 where each says all."""

    value: float
    shuffled: float
    """Mean over shuffled labels: what chance alone gives."""
    low: float
    """2.5th percentile over resampled episodes."""
    high: float
    """97.5th."""


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


def information(
    codes: Ints, labels: Ints, episodes: Sequence[str], *, rounds: int = 200, seed: int = 0
) -> Information:
    """NMI of codes [N, n] and labels [N], with chance and an interval."""
    one = joint(codes)
    generator = np.random.Generator(np.random.PCG64(seed))
    shuffled = [nmi(one, generator.permutation(labels)) for _ in range(20)]
    names, which = np.unique(np.array(episodes), return_inverse=True)
    rows = [np.flatnonzero(which == i) for i in range(len(names))]
    resampled = []
    for _ in range(rounds):
        picked = np.concatenate([rows[i] for i in generator.integers(len(rows), size=len(rows))])
        resampled.append(nmi(one[picked], labels[picked]))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Information(nmi(one, labels), float(np.mean(shuffled)), float(low), float(high))
