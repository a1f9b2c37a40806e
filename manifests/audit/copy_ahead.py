"""The copy-ahead probe: can the future of a held-out frame be predicted from that of the nearest train frame?

A model that memorised train can copy what came next there. So the probe takes pairs of a held-out frame and
the next sampled frame, and predicts the second by the frame that followed the nearest train frame. It
compares the error with two others: the error of copying the held-out frame itself, and the error of the null,
in which train pairs are predicted by train without their own environment. The result is the ratio of the
median held-out error to the median null error. It is 1 where train knows no more about held-out episodes than
about any new place, and approaches 0 where train has seen them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.episodes import UNKNOWN
from oxcart.manifests.audit.features import draws
from oxcart.manifests.audit.match import Thumbs, coarse
from oxcart.manifests.audit.near import LOOK
from oxcart.manifests.audit.result import Check, Criterion

CRITERION = Criterion("copy-ahead", "Futures of frames, train against held out")

KNOWN = 0.28
"""Ratio below which held-out episodes look known to train: 1 in 500 simulated kitchens without a twin have a
lower one beside four of train."""
FEWEST = 3
"""Minimum number of environments of train: with fewer, the ratio often is as low by chance."""
NOISE = 1.0
"""Error that is noise of the codec, in grey levels squared. Where every environment shows one still scene, no
future is further than this from another, and the ratio is 1."""
BLOCK = 1024
"""Train episodes compared at a time."""
MOST = 256
"""Maximum number of episodes on each side whose pairs are predicted."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Errors are medians over pairs of the mean squared difference of thumbnails, in grey levels."""

    pairs: int
    """Number of pairs from held-out episodes."""
    neighbour: float
    """Error of predicting the frame that followed the nearest train frame."""
    copy: float
    """Error of predicting the frame itself, unchanged."""
    null: float
    """Error for train pairs of predicting what followed the nearest frame of another environment."""
    ratio: float
    """`neighbour / null`, each at least `NOISE`: 1 means unseen, near 0 means memorised."""


def probe(held: Thumbs, train: Thumbs, place: npt.NDArray[np.int64], seed: int) -> Probe:
    """Predict the next frames of held-out episodes from train.

    Args:
        held: [V, N, 24, 24, 3] of held-out episodes.
        train: [G, N, 24, 24, 3] of train.
        place: environment [G] of each episode of train, or `UNKNOWN`; at least two are known.
        seed: draws the episodes.
    """
    one = _draw(len(held), seed, "held")
    known = np.flatnonzero(place != UNKNOWN)
    two = known[_draw(len(known), seed, "train")]
    errors, copied = _errors(held[one], train, None)
    null, _ = _errors(train[two], train, (place[two][:, None] != place) & (place != UNKNOWN))
    medians = [float(np.median(values)) for values in (errors, copied, null)]
    return Probe(
        pairs=len(errors),
        neighbour=round(medians[0], 3),
        copy=round(medians[1], 3),
        null=round(medians[2], 3),
        ratio=round(max(medians[0], NOISE) / max(medians[2], NOISE), 4),
    )


def check(found: Probe) -> Check:
    """The check of the probe: suspicious if train's futures come much closer than another place's."""
    summary = (
        f"held-out futures, predicted from the nearest train frames, err {found.ratio:.2f} times as much as "
        f"train's, predicted from other environments ({found.neighbour:.0f} and {found.null:.0f}, medians "
        f"over {found.pairs:,} pairs of frames): 1 is unseen, near 0 is known"
    )
    if found.ratio < KNOWN:
        return CRITERION.suspicious(summary, settle=LOOK)
    return CRITERION.passed(summary)


def _draw(count: int, seed: int, side: str) -> npt.NDArray[np.intp]:
    order = draws(seed, "probe", side, count).permutation(count)[:MOST]
    return np.sort(order)


def _errors(
    queries: Thumbs, train: Thumbs, allowed: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Squared error of the neighbour's future and of the frame itself, for each pair of the queries."""
    pairs = queries.shape[1] - 1
    now = [coarse(query[:-1]).reshape(pairs, -1) for query in queries]
    best = np.full((len(queries), pairs), -3, np.float32)
    where = np.zeros((len(queries), pairs, 2), np.intp)
    for start in range(0, len(train), BLOCK):
        gallery = coarse(train[start : start + BLOCK, :-1])
        flat = gallery.reshape(-1, gallery.shape[-1])
        for i, query in enumerate(now):
            products = (query @ flat.T).reshape(pairs, len(gallery), pairs)
            if allowed is not None:
                products[:, ~allowed[i, start : start + len(gallery)]] = -2
            flattened = products.reshape(pairs, -1)
            top = flattened.argmax(1)
            value = flattened[np.arange(pairs), top]
            better = value > best[i]
            best[i, better] = value[better]
            where[i, better] = np.stack(np.divmod(top, pairs), 1)[better] + [start, 0]
    found, copied = [], []
    for query, at in zip(queries, where, strict=True):
        future = query[1:].astype(np.float32)
        guess = train[at[:, 0], at[:, 1] + 1].astype(np.float32)
        found.append(((future - guess) ** 2).mean((1, 2, 3)))
        copied.append(((future - query[:-1].astype(np.float32)) ** 2).mean((1, 2, 3)))
    return np.concatenate(found), np.concatenate(copied)
