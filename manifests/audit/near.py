"""Near-duplicate episodes: the best confirmed score of every held-out episode, judged against the null.

The unit of a leak is not a frame but an episode, or the place and session that it shares. So the evidence is
several frames aligned in order (see `match`), and how much similarity is too much is measured on train itself
(see `verdict`). The scene counts: a model can memorise the table that two recordings share even if the arm
differs. If train has only one environment, there is no null and nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.audit.episodes import UNKNOWN, AuditedEpisode
from oxcart.manifests.audit.features import Features, Report, distance, draws
from oxcart.manifests.audit.match import Match, Matcher, window_text
from oxcart.manifests.audit.result import PASSED, Check, Criterion, count
from oxcart.manifests.audit.verdict import BEYOND, CONFIDENCE, Threshold, beyond, bound, exceeds, threshold

CRITERION = Criterion("near", "Images of whole episodes, train against held out")
ALIKE = Criterion("alike", "Environments of train, against each other")

LOOK = (
    "look at the nearest pairs in the page that -o writes: if they show one place, or you cannot tell, join "
    "its environments in the split rule, under aliases, and compile again"
)
"""What settles a suspicion that the images of episodes raise."""
NULL = 4000
"""Maximum number of train episodes whose scores make the null."""


@dataclass(frozen=True, kw_only=True)
class Near:
    """Result of the comparison of held-out episodes with train."""

    units: npt.NDArray[np.intp]
    """[Q]: indices of the held-out episodes that were compared."""
    match: Match
    """Candidates in train for each of `units`, in the same order."""
    null: npt.NDArray[np.float32]
    """Best score of each train episode of the null against train without its own environment."""
    gallery: tuple[int, int]
    """Number of train episodes compared with each held-out episode, and (median) with each of the null."""
    limit: Threshold | None
    """Threshold of the scores; None if there is none."""
    exceeding: int | None
    """Number of held-out episodes above the threshold; None if nothing was concluded."""
    allowed: int
    """Number of held-out episodes that chance may put above the threshold."""
    groups: tuple[str, ...]
    """One sentence per split of a dataset in which too many episodes exceed the threshold."""
    beyond: float | None
    """How far all held-out scores lie beyond the null, see `verdict.beyond`; None without a threshold."""
    alike: Check
    """Check of environments of train that stand out, as one place under two names does."""
    check: Check
    """Check of near-duplicates, as shown in the report."""


def shown(features: Features) -> npt.NDArray[np.bool_]:
    """Whether each episode shows anything, that is, at least half of its frames are not flat."""
    enough: npt.NDArray[np.bool_] = features.flat.mean(1) <= 0.5
    return enough


def compare(
    episodes: Sequence[AuditedEpisode], features: Features, seed: int, workers: int, report: Report
) -> Near:
    """Compare held-out episodes with train, and train with itself.

    Args:
        episodes: train episodes first, then held-out ones.
        features: features of these episodes.
        seed: draws the null where train is large.
        workers: number of threads.
        report: called with the number of episodes compared so far.
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

    null, of, partner = np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
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
        of = place[queries][compared.best > -1]
        partner = place[:train][compared.episodes[compared.best > -1, 0]]
    limit, why = None, _why_not(episodes, train, units, null, place, known)
    if why is None:
        limit = threshold(null, of)
    exceeding, allowed, groups, check = _conclude(episodes, train, units, match, limit, why)
    far = beyond(match.best, null, of, limit) if limit else None
    if limit is not None and check.status == PASSED and far is not None and far > BEYOND:
        check = _beyond(match.best, null[~np.isin(of, limit.apart)], limit)
    return Near(
        units=units,
        match=match,
        null=null,
        gallery=(int(fine.sum()), int(np.median(sizes))),
        limit=limit,
        exceeding=exceeding,
        allowed=allowed,
        groups=groups,
        beyond=far,
        alike=_alike(episodes[:train], limit, null, of, partner),
        check=check,
    )


def null_queries(
    place: npt.NDArray[np.int64], fine: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.intp]:
    """Train episodes of known environment that make the null: all of them, or a random draw."""
    found = np.flatnonzero(fine & (place != UNKNOWN))
    if len(found) > NULL:
        found = np.sort(found[draws(seed, "null", len(found)).permutation(len(found))[:NULL]])
    return found


def compared_in_all(episodes: Sequence[AuditedEpisode]) -> int:
    """Maximum number of episodes that `compare` searches for, as the total of a progress bar."""
    train = sum(episode.split == "train" for episode in episodes)
    return len(episodes) - train + min(NULL, train)


def pairs(near: Near, episodes: Sequence[AuditedEpisode], features: Features) -> list[dict[str, Any]]:
    """Every candidate of every held-out episode, best first, with the evidence for it."""
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


def _why_not(
    episodes: Sequence[AuditedEpisode],
    train: int,
    units: npt.NDArray[np.intp],
    null: npt.NDArray[np.float32],
    place: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
) -> str | None:
    """Reason why there is no threshold; None if there can be one."""
    environments = len(set(place[:train][known].tolist()))
    if len(episodes) == train:
        return "nothing is held out: there is no episode of val or test"
    if not train:
        return "train has no episode"
    if not len(units):
        return "every held-out episode is black, or of one colour"
    if not known.any():
        return "no episode of train has a known environment and shows anything"
    if environments < 2:
        return "train has one environment, so nothing says how alike two places look by chance"
    if len(null) < 2:
        return "fewer than two episodes of train can be compared with another environment"
    return None


def _conclude(
    episodes: Sequence[AuditedEpisode],
    train: int,
    units: npt.NDArray[np.intp],
    match: Match,
    limit: Threshold | None,
    why: str | None,
) -> tuple[int | None, int, tuple[str, ...], Check]:
    """Number that exceed the threshold, number that may, sentences on splits with too many, and the check."""
    if limit is None:
        return None, 0, (), CRITERION.unchecked(why or "there is no threshold")
    over = exceeds(match.best, limit.value)
    exceeding, allowed = int(over.sum()), bound(len(units), limit.null, limit.beyond)
    if allowed >= len(units):
        why = (
            f"{count(len(units), 'held-out episode')} against a null of {limit.null:,} are too few: "
            "even if all exceeded the threshold, chance could explain it"
        )
        return None, allowed, (), CRITERION.unchecked(why)
    members: dict[tuple[int, str], list[int]] = {}
    for row, unit in enumerate(units.tolist()):
        members.setdefault((episodes[unit].dataset, episodes[unit].split), []).append(row)
    sure = 1 - (1 - CONFIDENCE) / len(members)
    groups = []
    for (dataset, split), rows in members.items() if len(members) > 1 else ():
        some, may = int(over[rows].sum()), bound(len(rows), limit.null, limit.beyond, sure)
        if some > may:
            what = f"{some:,} of {len(rows):,} in {split} of dataset {dataset + 1} exceed the threshold"
            groups.append(f"{what}; {may:,} would be allowed")
    black = len(episodes) - train - len(units)
    note = f"; {count(black, 'black episode')} not compared" if black else ""
    what = (
        f"{exceeding:,} of {count(len(units), 'episode')} exceed {limit.value:.3f} ({limit.how}); "
        f"chance may explain {allowed:,}{note}"
    )
    if groups:
        what += "; " + "; ".join(groups)
    ended = CRITERION.failed if exceeding > allowed or groups else CRITERION.passed
    return exceeding, allowed, tuple(groups), ended(what)


def _beyond(best: npt.NDArray[np.float32], null: npt.NDArray[np.float32], limit: Threshold) -> Check:
    """The check where no more episodes exceed the threshold than may, but all lie beyond the null."""
    summary = (
        f"all held-out scores ({best.min():.2f} to {best.max():.2f}) lie beyond the whole null (at most "
        f"{null.max():.2f}), though {int(exceeds(best, limit.value).sum()):,} of {len(best):,} exceed "
        f"the threshold of {limit.value:.3f} ({limit.how})"
    )
    return CRITERION.suspicious(summary, settle=LOOK)


def _alike(
    train: Sequence[AuditedEpisode],
    limit: Threshold | None,
    null: npt.NDArray[np.float32],
    of: npt.NDArray[np.int64],
    partner: npt.NDArray[np.int64],
) -> Check:
    """Check that no environments of train are more alike than chance explains."""
    if limit is None:
        return ALIKE.unchecked("there is no threshold to judge them by")
    name = {episode.place: str(episode.row["environment"]) for episode in train}
    pairs: dict[tuple[str, str], float] = {}
    for place in limit.apart:
        mine = np.flatnonzero(of == place)
        best = mine[null[mine].argmax()]
        pair = tuple(sorted((name[place], name[int(partner[best])])))
        pairs[pair[0], pair[1]] = max(float(null[best]), pairs.get((pair[0], pair[1]), 0.0))
    if not pairs:
        return ALIKE.passed("no environment of train stands out from the others")
    rows = [{"one": one, "other": other, "score": round(score, 4)} for (one, other), score in pairs.items()]
    text = ", ".join(f"{row['one']} and {row['other']} ({row['score']:.2f})" for row in rows[:3])
    summary = f"left out of the null, because they may be one place or share recordings: {text}"
    return ALIKE.suspicious(summary, rows)
