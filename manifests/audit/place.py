"""Which environments look like one place? A ranking for human review, from backgrounds without the arm.

An episode's background is the temporal median of its thumbnails, from which moving things vanish. Backgrounds
are compared like frames (see `match`), so another lens position or a mirrored image does not hide a place.
The result is suspicious if two names look more alike than environments of train do among each other. The
decision is left to a person, who gets the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.episodes import UNKNOWN, AuditedEpisode
from oxcart.manifests.audit.match import Matcher, backgrounds, coarse
from oxcart.manifests.audit.result import Check, Criterion

CRITERION = Criterion("places", "Backgrounds of environments, train against held out")

PER_PLACE = 6
"""Backgrounds compared per environment, spread over its episodes."""
SHOWN_PLACES = 40
"""Maximum number of environments in the heat map."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Similarity of the backgrounds of environments."""

    names: tuple[str, ...]
    """Environments of the heat map, held-out ones first."""
    held: tuple[bool, ...]
    """Whether each environment is held out."""
    likeness: tuple[tuple[float, ...], ...]
    """Best correlation of backgrounds for each pair of environments, without windows; the diagonal is 1."""
    ranking: tuple[dict[str, Any], ...]
    """Pairs of a held-out environment and one of train, the most alike first."""
    check: Check


def check_places(
    episodes: Sequence[AuditedEpisode],
    labels: Sequence[str],
    thumbs: npt.NDArray[np.uint8],
    held: npt.NDArray[np.bool_],
) -> Places:
    """Compare the backgrounds of all environments.

    Args:
        episodes: the episodes to compare.
        labels: name of each episode's environment in the report.
        thumbs: thumbnails of their frames.
        held: whether each episode is held out.
    """
    chosen = _spread(episodes, held)
    if not len(chosen):
        check = CRITERION.unchecked("no environment is known")
        return Places(names=(), held=(), likeness=(), ranking=(), check=check)
    images = backgrounds(thumbs[chosen])[:, None]
    place = np.array([episodes[i].place for i in chosen], np.int64)
    out = held[chosen]
    name_of = {episodes[i].place: labels[i] for i in chosen}
    train, test = np.flatnonzero(~out), np.flatnonzero(out)
    heat = _heat(images, place, out, name_of)
    if not len(test):
        check = CRITERION.unchecked("no episode of known environment is held out")
        return Places(**heat, ranking=(), check=check)
    if not len(train):
        check = CRITERION.unchecked("no episode of train has a known environment")
        return Places(**heat, ranking=(), check=check)
    gallery = Matcher(images[train])
    best = gallery.search(images[test], lambda index: place[test[index]][:, None] != place[train][None])
    null = gallery.search(
        images[train], lambda index: place[train[index]][:, None] != place[train][None], keep=4
    )
    pairs: dict[tuple[int, int], dict[str, Any]] = {}
    for row, one in enumerate(test):
        for other, score in zip(best.episodes[row], best.scores[row], strict=True):
            if other < 0:
                continue
            at = int(place[one]), int(place[train[other]])
            if at not in pairs or score > pairs[at]["score"]:
                pairs[at] = {
                    "held out": name_of[at[0]],
                    "train": name_of[at[1]],
                    "score": round(float(score), 4),
                    "held out episode": int(chosen[one]),
                    "train episode": int(chosen[train[other]]),
                }
    ranking = sorted(pairs.values(), key=lambda row: (-row["score"], row["held out"], row["train"]))
    shown = [{k: v for k, v in row.items() if not k.endswith("episode")} for row in ranking]
    known = null.best[null.best > -1]
    if len(known) < 2 or len(set(place[train].tolist())) < 3:
        why = "train has fewer than three environments, so nothing says how alike two places are"
        return Places(**heat, ranking=tuple(ranking), check=CRITERION.unchecked(why, shown))
    limit = _ceiling(known)
    alike = [row for row in shown if row["score"] > limit]
    if alike:
        text = ", ".join(f"{row['held out']} and {row['train']} ({row['score']:.2f})" for row in alike[:3])
        summary = f"more alike than environments of train are ({limit:.2f}): {text}"
        return Places(**heat, ranking=tuple(ranking), check=CRITERION.suspicious(summary, shown))
    if not shown:
        check = CRITERION.passed("no place held out resembles any of train")
        return Places(**heat, ranking=(), check=check)
    first = shown[0]
    summary = (
        f"the most alike are {first['held out']} and {first['train']} ({first['score']:.2f}; environments of "
        f"train reach {float(known.max()):.2f} among each other)"
    )
    return Places(**heat, ranking=tuple(ranking), check=CRITERION.passed(summary, shown))


def _ceiling(scores: npt.NDArray[np.float32]) -> float:
    """The larger of the maximum and the 99.9% quantile of a normal tail, after Fisher's transform."""
    spread = np.arctanh(np.clip(scores.astype(np.float64), -0.999, 0.999))
    middle = float(np.median(spread))
    deviation = float(np.sqrt(np.square(spread[spread >= middle] - middle).mean()))
    return max(float(scores.max()), float(np.tanh(middle + 3.09 * deviation)))


def _spread(episodes: Sequence[AuditedEpisode], held: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """A few episodes of each environment and side, spread evenly over all of them."""
    members: dict[tuple[int, bool], list[int]] = {}
    for i, episode in enumerate(episodes):
        if episode.place != UNKNOWN:
            members.setdefault((episode.place, bool(held[i])), []).append(i)
    chosen: list[int] = []
    for own in members.values():
        at = np.unique(np.linspace(0, len(own) - 1, PER_PLACE).round().astype(int))
        chosen += [own[k] for k in at]
    return np.array(sorted(chosen), np.intp)


def _heat(
    images: npt.NDArray[np.uint8],
    place: npt.NDArray[np.int64],
    held: npt.NDArray[np.bool_],
    name_of: dict[int, str],
) -> dict[str, Any]:
    vectors = coarse(images[:, 0]).reshape(len(images), -1)
    out = {int(p): bool(h) for p, h in zip(place, held, strict=True)}
    out |= {int(p): True for p in place[held]}
    order = sorted(out, key=lambda p: (not out[p], name_of[p]))[:SHOWN_PLACES]
    rows = []
    for one in order:
        best = vectors[place == one] @ vectors.T
        rows.append(
            tuple(1.0 if other == one else round(float(best[:, place == other].max()), 4) for other in order)
        )
    return {
        "names": tuple(name_of[p] for p in order),
        "held": tuple(out[p] for p in order),
        "likeness": tuple(rows),
    }
