"""Group backgrounds into scenes: those that are alike, on average, above a threshold are one.

Average linkage joins the two most alike groups until no two are alike enough: a chain of episodes, each like
the next, does not join two places, and one odd episode does not part a place. It compares all pairs, so of a
large dataset some episodes come first, spread over all of it. The others join a scene that they are like, and
those that fit none are grouped among themselves, in turn. Backgrounds and their order decide the result.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.likeness import likeness, plains
from oxcart.manifests.audit.match import one_thread
from oxcart.shards.prefetch import in_threads

THRESHOLD = 0.6
"""Likeness, from 0 to 1 as in an audit, above which two groups are one scene."""
MOST = 1500
"""Episodes of which all pairs are compared."""
TOGETHER = 4096
"""Other episodes that are compared with the scenes at once, which bounds the memory that this takes."""
MEMBERS = 4
"""Episodes of a scene that stand for it."""
_BLOCK = 64

Thumbs = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]
Report = Callable[[int], None]


def group(
    thumbs: Thumbs,
    threshold: float = THRESHOLD,
    workers: int = 1,
    report: Report = lambda done: None,
    most: int = MOST,
) -> Ints:
    """The number of the scene of each background [E, 24, 24, 3]: scenes are numbered as they first occur.

    Args:
        thumbs: backgrounds, as `backgrounds.read_backgrounds` reads them.
        threshold: likeness from which on two groups are one scene.
        workers: number of threads.
        report: called with the number of episodes grouped so far.
        most: episodes of which all pairs are compared.
    """
    least = np.arctanh(np.float64(threshold))
    labels = np.full(len(thumbs), -1, np.intp)
    left = np.arange(len(thumbs))
    while len(left):
        first = np.unique(np.linspace(0, len(left) - 1, min(most, len(left))).round().astype(int))
        some, left = left[first], np.delete(left, first)
        own = linked(alike(thumbs[some], thumbs[some], workers), least)
        scenes = [some[own == one] for one in range(own.max() + 1)]
        first_number = labels.max() + 1
        labels[some] = first_number + own
        if len(left):
            chosen = [members_of(scene) for scene in scenes]
            starts = np.cumsum([0, *map(len, chosen[:-1])])
            counts = np.array([len(one) for one in chosen])
            there, alone = thumbs[np.concatenate(chosen)], []
            for at in range(0, len(left), TOGETHER):
                part = left[at : at + TOGETHER]
                means = np.add.reduceat(alike(thumbs[part], there, workers), starts, axis=1) / counts
                best = means.argmax(1)
                fits = means[np.arange(len(part)), best] >= least
                labels[part[fits]] = first_number + best[fits]
                alone.append(part[~fits])
            left = np.concatenate(alone)
        report(len(thumbs) - len(left))
    _, firsts, numbers = np.unique(labels, return_index=True, return_inverse=True)
    order: Ints = np.argsort(np.argsort(firsts))
    renumbered: Ints = order[numbers]
    return renumbered


def members_of(scene: Ints, count: int = MEMBERS) -> Ints:
    """A few members of a scene, spread over all."""
    chosen: Ints = scene[np.unique(np.linspace(0, len(scene) - 1, count).round().astype(int))]
    return chosen


def alike(one: Thumbs, other: Thumbs, workers: int = 1) -> Floats:
    """Likeness [n, m] before it is scaled to [0, 1]: the mean of both ways to look for one in the other."""
    with one_thread():
        there = plains(other)
        calls: list[Callable[[], Floats]] = [
            partial(likeness, one[at : at + _BLOCK], there) for at in range(0, len(one), _BLOCK)
        ]
        forward = np.concatenate(list(in_threads(workers, iter(calls), depth=2 * workers)))
        if one is other:
            return np.asarray((forward + forward.T) / 2, np.float32)
        back = [partial(_back, one[at : at + _BLOCK], other) for at in range(0, len(one), _BLOCK)]
        backward = np.concatenate(list(in_threads(workers, iter(back), depth=2 * workers)))
        return np.asarray((forward + backward) / 2, np.float32)


def _back(one: Thumbs, other: Thumbs) -> Floats:
    return likeness(other, plains(one)).T


def linked(similar: Floats, least: float) -> Ints:
    """Groups by average linkage, from the likeness [n, n] of all pairs, numbered as they first occur."""
    count = len(similar)
    means = similar.astype(np.float64)
    np.fill_diagonal(means, -np.inf)
    sizes, owner = np.ones(count), np.arange(count)
    best, best_at = means.max(1), means.argmax(1)
    while count > 1:
        one = int(best.argmax())
        if best[one] < least:
            break
        other = int(best_at[one])
        keep, gone = min(one, other), max(one, other)
        merged = (sizes[keep] * means[keep] + sizes[gone] * means[gone]) / (sizes[keep] + sizes[gone])
        merged[keep] = -np.inf
        means[keep], means[:, keep] = merged, merged
        means[gone], means[:, gone] = -np.inf, -np.inf
        sizes[keep] += sizes[gone]
        owner[owner == gone] = keep
        best[gone] = -np.inf
        stale = np.flatnonzero((best_at == keep) | (best_at == gone) | (merged > best))
        stale = np.union1d(stale[np.isfinite(best[stale])], [keep])
        best[stale], best_at[stale] = means[stale].max(1), means[stale].argmax(1)
    return np.asarray(np.unique(owner, return_inverse=True)[1], np.intp)


def agreement(labels: Ints, known: list[str]) -> dict[str, Any]:
    """How scenes agree with environments that are known.

    `purity` is the share of episodes whose environment is the commonest of their scene: it is 1 as well if
    each is a scene of its own. `completeness` is the share whose scene is the commonest of their environment:
    it is 1 as well if all are one scene. `ari`, the adjusted Rand index, is 1 if both are the same grouping,
    and about 0 for a random one.
    """
    names, of = np.unique(known, return_inverse=True)
    _, scene = np.unique(labels, return_inverse=True)
    counts = np.zeros((scene.max() + 1, len(names)))
    np.add.at(counts, (scene, of), 1)
    together, apart = _pairs(counts), _pairs(np.array([counts.sum()]))
    mine, theirs = _pairs(counts.sum(1)), _pairs(counts.sum(0))
    chance = mine * theirs / apart if apart else 0.0
    mean = (mine + theirs) / 2
    return {
        "environments": len(names),
        "scenes": len(counts),
        "episodes": len(labels),
        "purity": float(counts.max(1).sum() / counts.sum()),
        "completeness": float(counts.max(0).sum() / counts.sum()),
        "ari": float((together - chance) / (mean - chance)) if mean != chance else 1.0,
    }


def _pairs(counts: npt.NDArray[Any]) -> float:
    return float((counts * (counts - 1) / 2).sum())
