"""Near-duplicate episodes: the best confirmed score of every held-out episode, against the null.

What leaks is not a frame but an episode, or the place and session that it shares; so the evidence is
several frames aligned in order (see `match`), and how much is too much is measured on train itself (see
`verdict`). The scene counts: two recordings of one table, an arm apart, are what a model can memorise.
Where train has one environment there is no null, and nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.episodes import UNKNOWN, Episode
from oxcart.manifests.audit.features import Features, distance, draws
from oxcart.manifests.audit.match import Match, Matcher, window_text
from oxcart.manifests.audit.result import Check, count, failed, passed, unchecked
from oxcart.manifests.audit.verdict import Threshold, bound, threshold

NAME, TITLE = "near", "No more held-out episodes resemble train than chance explains"

NULL = 4000
"""Train episodes whose scores make the null, at most."""

Report = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Near:
    """What the comparison of held-out episodes with train found."""

    units: npt.NDArray[np.intp]
    """Held-out episodes that were compared."""
    match: Match
    """Their candidates in train, in the order of `units`."""
    null: npt.NDArray[np.float32]
    """Best scores of train episodes against train without their own environment."""
    gallery: tuple[int, int]
    """Train episodes that held-out ones and, in the median, those of the null were compared with."""
    limit: Threshold | None
    """None where it was not checked."""
    exceeding: int | None
    """Held-out episodes beyond the threshold."""
    allowed: int
    """How many the binomial bound allows."""
    check: Check
    """What the report says of it."""


def shown(features: Features) -> npt.NDArray[np.bool_]:
    """Which episodes show anything: half of their frames at least are not flat."""
    enough: npt.NDArray[np.bool_] = features.flat.mean(1) <= 0.5
    return enough


def compare(episodes: Sequence[Episode], features: Features, seed: int, workers: int, report: Report) -> Near:
    """Compare what is held out with train, and train with itself.

    Args:
        episodes: train first, then those that are held out.
        features: of them.
        seed: draws the null where train is large.
        workers: threads.
        report: told of episodes compared so far.
    """
    train = sum(episode.split == "train" for episode in episodes)
    place = np.array([episode.place for episode in episodes], np.int64)
    useful = shown(features)
    units = np.flatnonzero(useful[train:]) + train
    gallery = Matcher(features.thumbs[:train])
    fine = useful[:train]

    match = gallery.search(
        features.thumbs[units],
        lambda index: np.broadcast_to(fine, (len(index), train)),
        workers=workers,
        report=report,
    )
    queries = null_queries(place[:train], fine, seed)
    known = fine & (place[:train] != UNKNOWN)

    def elsewhere(index: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        other: npt.NDArray[np.bool_] = place[queries[index]][:, None] != place[:train][None]
        other &= known
        return other

    null = np.zeros(0, np.float32)
    sizes = [int(known.sum())]
    if len(set(place[:train][known].tolist())) > 1:
        compared = gallery.search(
            features.thumbs[queries],
            elsewhere,
            workers=workers,
            report=lambda done: report(len(units) + done),
        )
        null = compared.best[compared.best > -1]
        sizes = [
            int(elsewhere(np.array([i])).sum()) for i in range(0, len(queries), max(1, len(queries) // 50))
        ]
    limit, exceeding, allowed, check = _conclude(episodes, train, units, match, null, place, known)
    return Near(
        units=units,
        match=match,
        null=null,
        gallery=(int(fine.sum()), int(np.median(sizes))),
        limit=limit,
        exceeding=exceeding,
        allowed=allowed,
        check=check,
    )


def null_queries(
    place: npt.NDArray[np.int64], fine: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.intp]:
    """Train episodes of known environment that make the null: all, or a draw."""
    found = np.flatnonzero(fine & (place != UNKNOWN))
    if len(found) > NULL:
        found = np.sort(found[draws(seed, "null", len(found)).permutation(len(found))[:NULL]])
    return found


def compared_in_all(episodes: Sequence[Episode]) -> int:
    """Episodes that `compare` searches for, at most: for a progress bar."""
    train = sum(episode.split == "train" for episode in episodes)
    return len(episodes) - train + min(NULL, train)


def pairs(near: Near, episodes: Sequence[Episode], features: Features) -> list[dict[str, Any]]:
    """Every candidate of every held-out episode, the best first, with what makes it so."""
    found: list[dict[str, Any]] = []
    for row, unit in enumerate(near.units):
        for k in range(near.match.episodes.shape[1]):
            other = int(near.match.episodes[row, k])
            if other < 0:
                continue
            along = near.match.similarity[row, k]
            at = int(along.argmax())
            frame = int(near.match.pairs[row, k, at])
            bits = distance(features.dhash[unit], features.dhash[other][near.match.pairs[row, k]])
            steps = [features.steps[unit].tolist(), features.steps[other][near.match.pairs[row, k]].tolist()]
            found.append(
                {
                    "held": int(unit),
                    "train": other,
                    "rank": k,
                    "score": round(float(near.match.scores[row, k]), 4),
                    "step": int(features.steps[unit, at]),
                    "train_step": int(features.steps[other, frame]),
                    "dhash_bits": int(np.median(bits)),
                    "aligned": [list(pair) for pair in zip(*steps, strict=True)] if k == 0 else [],
                    "window": window_text(int(near.match.window[row, k])),
                }
            )
    found.sort(key=lambda pair: (-pair["score"], pair["held"], pair["train"]))
    return found


def _conclude(
    episodes: Sequence[Episode],
    train: int,
    units: npt.NDArray[np.intp],
    match: Match,
    null: npt.NDArray[np.float32],
    place: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
) -> tuple[Threshold | None, int | None, int, Check]:
    why = None
    environments = len(set(place[:train][known].tolist()))
    if len(episodes) == train:
        why = "nothing is held out: there is no episode of val or test"
    elif not train:
        why = "train has no episode"
    elif not len(units):
        why = "every held-out episode is black, or of one colour"
    elif not known.any():
        why = "no episode of train has a known environment and shows anything"
    elif environments < 2:
        why = "train has one environment, so nothing says how alike two places look by chance"
    elif len(null) < 2:
        why = "fewer than two episodes of train can be compared with another environment"
    if why is not None:
        return None, None, 0, unchecked(NAME, TITLE, why)
    limit = threshold(null)
    exceeding = int((match.best > limit.value).sum())
    allowed = bound(len(units), limit.rate)
    if allowed >= len(units):
        why = (
            f"{count(len(units), 'held-out episode')} against a null of {len(null):,} are too few: "
            "even if all exceeded the threshold, chance could explain it"
        )
        return limit, None, allowed, unchecked(NAME, TITLE, why)
    black = len(episodes) - train - len(units)
    note = f"; {count(black, 'black episode')} not compared" if black else ""
    what = (
        f"{exceeding:,} of {count(len(units), 'episode')} exceed {limit.value:.3f} ({limit.how}); the "
        f"{allowed:,} that 99% of chance draws stay within are allowed{note}"
    )
    report = failed if exceeding > allowed else passed
    return limit, exceeding, allowed, report(NAME, TITLE, what)
