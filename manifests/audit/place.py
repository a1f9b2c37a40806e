"""Does an environment that is held out look like one of train? The twin test, and a ranking for the eye.

An episode's background is the temporal median of its thumbnails, from which moving things vanish. A few
backgrounds of every environment are compared (see `likeness`): that of two environments is the median, over
the backgrounds of one, of the best match among those of the other. `twins` judges which of them may be one
place under two names. The test asks a person to look, who gets the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from oxcart.manifests.alike import aliases
from oxcart.manifests.audit.episodes import UNKNOWN, AuditedEpisode
from oxcart.manifests.audit.features import draws
from oxcart.manifests.audit.likeness import Plains, likeness, plains
from oxcart.manifests.audit.match import backgrounds, one_thread
from oxcart.manifests.audit.result import Check, Criterion, some
from oxcart.manifests.audit.twins import FEWEST, Twins, judge
from oxcart.shards.prefetch import in_threads

CRITERION = Criterion("places", "Backgrounds of environments, train against held out")

PER_PLACE = 6
"""Backgrounds compared per environment, spread over its episodes."""
NULL_PLACES = 256
"""Maximum number of environments of train whose contrasts are computed."""
KEPT = 3
"""Environments of train that are listed for each held-out one, the most alike first."""
SHOWN_PLACES = 40
"""Maximum number of environments in the heat map."""
_BLOCK = 128
"""Environments of train compared at a time."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Places:
    """How alike environments look. Likenesses are scaled to [0, 1], where 1 is the same image."""

    names: tuple[str, ...] = ()
    """Environments of the heat map, held-out ones first."""
    held: tuple[bool, ...] = ()
    """Whether each environment is held out."""
    likeness: tuple[tuple[float, ...], ...] = ()
    """Likeness of each pair of environments; the diagonal is 1."""
    ranking: tuple[dict[str, Any], ...] = ()
    """Pairs of a held-out environment and one of train: possible twins first, then the most alike."""
    null: tuple[float, ...] = ()
    """By how much environments of train stand out, sorted."""
    middle: float | None = None
    """Median contrast of the environments of train; None if nothing was concluded."""
    limit: float | None = None
    """Least excess above which a held-out environment may be a twin; None if nothing was concluded."""
    check: Check


class _SampledPlace(NamedTuple):
    """An environment on one side, with the episodes whose backgrounds are compared."""

    number: int
    name: str
    dataset: int
    held: bool
    episodes: npt.NDArray[np.intp]
    backgrounds: npt.NDArray[np.uint8]
    """[n, 24, 24, 3]: one of each episode."""


class _Block(NamedTuple):
    """The backgrounds of some environments, ready to be compared with others."""

    plains: Plains
    first: npt.NDArray[np.intp]
    """Where those of each environment begin."""


def check_places(
    episodes: Sequence[AuditedEpisode],
    labels: Sequence[str],
    thumbs: npt.NDArray[np.uint8],
    held: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.bool_],
    *,
    seed: int = 0,
    workers: int = 1,
    report: Callable[[int], None] = lambda done: None,
) -> Places:
    """Compare the backgrounds of all environments.

    Args:
        episodes: the episodes to compare.
        labels: name of each episode's environment in the report.
        thumbs: thumbnails [E, N, 24, 24, 3] of their frames.
        held: whether each episode is held out.
        shown: whether each episode shows anything.
        seed: draws the environments of train whose contrasts are computed, if there are many.
        workers: number of threads.
        report: called with the number of environments compared so far.
    """
    test, train = _both_sides(episodes, labels, thumbs, held, shown)
    with one_thread():
        found = _heat([*test, *train], Places(check=CRITERION.unchecked("no environment is known")))
        if not test or not train:
            what = "train episode" if test else "held-out episode"
            why = f"no {what} has a known environment and shows anything"
            return replace(found, check=CRITERION.unchecked(why))
        drawn = np.sort(draws(seed, "places", len(train)).permutation(len(train))[:NULL_PLACES])
        queries = [*test, *(train[i] for i in drawn)]
        blocks = _blocks(train)
        calls = (partial(_compared, one, train, blocks) for one in queries)
        rows = []
        for done, row in enumerate(in_threads(workers, calls, depth=2 * workers), 1):
            rows.append(row)
            report(done)
        alike = np.stack(rows)
        twins = None
        if len(train) >= FEWEST:
            of, number = np.array([place.dataset for place in queries]), len(test)
            twins = judge(alike[:number], alike[number:], of[:number], of[number:])
        found = replace(found, ranking=tuple(_ranking(test, train, alike, twins)))
    if twins is None:
        why = f"train has fewer than {FEWEST} environments, so nothing says how alike two places are"
        return replace(found, check=CRITERION.unchecked(why, _evidence(found.ranking)))
    return replace(
        found,
        null=tuple(sorted(round(float(value), 4) for value in twins.null)),
        limit=round(float(twins.limit.min()), 4),
        middle=round(twins.middle, 4),
        check=_check(episodes, found.ranking, twins),
    )


def compared_in_all(episodes: Sequence[AuditedEpisode]) -> int:
    """Maximum number of environments that `check_places` compares, as the total of a progress bar."""
    known = {(e.split == "train", e.place) for e in episodes if e.place != UNKNOWN}
    train = sum(in_train for in_train, _ in known)
    return len(known) - train + min(NULL_PLACES, train)


def _both_sides(
    episodes: Sequence[AuditedEpisode],
    labels: Sequence[str],
    thumbs: npt.NDArray[np.uint8],
    held: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.bool_],
) -> tuple[list[_SampledPlace], list[_SampledPlace]]:
    """The environments held out and those of train, with a few episodes each, spread evenly over all."""
    members: dict[tuple[bool, int], list[int]] = {}
    for i, episode in enumerate(episodes):
        if episode.place != UNKNOWN and shown[i]:
            members.setdefault((bool(held[i]), episode.place), []).append(i)
    sides: tuple[list[_SampledPlace], list[_SampledPlace]] = ([], [])
    for (out, number), own in sorted(members.items(), key=lambda item: labels[item[1][0]]):
        at = np.array(own)[np.unique(np.linspace(0, len(own) - 1, PER_PLACE).round().astype(int))]
        dataset = episodes[own[0]].dataset
        mine, dataset = backgrounds(thumbs[at]), episodes[own[0]].dataset
        sides[not out].append(_SampledPlace(number, labels[own[0]], dataset, out, at, mine))
    return sides


def _blocks(places: Sequence[_SampledPlace]) -> list[_Block]:
    """The backgrounds of environments, made ready once: that takes longer than to compare them."""
    found = []
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        first = np.cumsum([0, *(len(place.episodes) for place in block[:-1])])
        found.append(_Block(plains(np.concatenate([place.backgrounds for place in block])), first))
    return found


def _compared(one: _SampledPlace, others: Sequence[_SampledPlace], blocks: Sequence[_Block]) -> Floats:
    """Likeness [E] of an environment to others, whose backgrounds are in blocks; NaN where it is the same."""
    found = [
        np.median(np.maximum.reduceat(likeness(one.backgrounds, block.plains), block.first, axis=1), axis=0)
        for block in blocks
    ]
    alike: Floats = np.concatenate(found).astype(np.float32)
    alike[[other.number == one.number for other in others]] = np.nan
    return alike


def _ranking(
    test: Sequence[_SampledPlace],
    train: Sequence[_SampledPlace],
    alike: Floats,
    twins: Twins | None,
) -> list[dict[str, Any]]:
    """The most alike pairs of a held-out environment and one of train, suspected twins first."""
    rows = []
    for i, one in enumerate(test):
        order = np.argsort(-np.where(np.isnan(alike[i]), -np.inf, alike[i]), kind="stable")
        for rank, at in enumerate(order[:KEPT]):
            if np.isnan(alike[i, at]):
                continue
            other = train[at]
            each = likeness(one.backgrounds, plains(other.backgrounds))
            mine, theirs = np.unravel_index(each.argmax(), each.shape)
            stands_out = None if twins is None or rank else float(twins.excess[i])
            limit = math.inf if twins is None else float(twins.limit[i])
            rows.append(
                {
                    "held out": one.name,
                    "train": other.name,
                    "score": round(float(np.tanh(alike[i, at])), 4),
                    "stands out by": None if stands_out is None else round(stands_out, 4),
                    "twin": stands_out is not None and stands_out > limit,
                    "held out episode": int(one.episodes[mine]),
                    "train episode": int(other.episodes[theirs]),
                }
            )
    rows.sort(key=lambda row: (not row["twin"], -row["score"], row["held out"], row["train"]))
    return rows


def _evidence(ranking: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    hidden = ("held out episode", "train episode", "twin")
    return [{name: value for name, value in row.items() if name not in hidden} for row in ranking]


def _check(episodes: Sequence[AuditedEpisode], ranking: Sequence[dict[str, Any]], twins: Twins) -> Check:
    rows = _evidence(ranking)
    suspects = [row for row in ranking if row["twin"]]
    if suspects:
        pairs = [
            f"{row['held out']} looks like {row['train']} and like no other environment of train (stands out "
            f"by {_excess(row):.2f})"
            for row in suspects
        ]
        summary = f"{some(pairs)}; for different places, more than {twins.limit.min():.2f} is rare"
        return CRITERION.suspicious(summary, rows, settle=_settle(episodes, suspects))
    best = max((row for row in ranking if row["stands out by"] is not None), key=_excess)
    rare = f"for different places, more than {twins.limit.min():.2f} is rare"
    summary = (
        f"no held-out environment looks like one of train alone: {best['held out']} stands out most, by "
        f"{_excess(best):.2f} toward {best['train']}; {rare}"
    )
    return CRITERION.passed(summary, rows)


def _excess(row: dict[str, Any]) -> float:
    return float(row["stands out by"])


def _settle(episodes: Sequence[AuditedEpisode], suspects: Sequence[dict[str, Any]]) -> str:
    """What a person can do about suspected twins."""
    joined: dict[str, list[str]] = {}
    for row in suspects:
        one, other = (episodes[row[side]] for side in ("held out episode", "train episode"))
        if one.dataset == other.dataset:
            joined.setdefault(other.row["environment"], []).append(one.row["environment"])
    # No rule joins environments of two datasets.
    remedy = (
        f"join them in the split rule and compile again: {aliases([(a, *b) for a, b in joined.items()])}"
        if joined
        else "hold it out of every dataset and compile again"
    )
    pairs = some([f"{row['held out']} and {row['train']}" for row in suspects])
    return (
        f"look at the backgrounds of {pairs}, and at the nearest pairs, in the page that -o writes: if they "
        f"show one place, or you cannot tell, {remedy}"
    )


def _heat(places: Sequence[_SampledPlace], found: Places) -> Places:
    """Fill in the heat map; an environment on both sides counts as held out, with its episodes there."""
    shown = list({place.number: place for place in reversed(places)}.values())[::-1][:SHOWN_PLACES]
    if not shown:
        return found
    blocks = _blocks(shown)
    one_way = np.tanh(np.stack([_compared(one, shown, blocks) for one in shown]))
    rows = np.nan_to_num((one_way + one_way.T) / 2, nan=1.0)
    return replace(
        found,
        names=tuple(place.name for place in shown),
        held=tuple(place.held for place in shown),
        likeness=tuple(tuple(round(float(value), 4) for value in row) for row in rows),
    )
