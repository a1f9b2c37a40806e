"""The frozen rule: episodes that a dataset gets later are split so that nothing it has ever moves.

Every name that the dataset has is listed where it is; a new one goes to train, unless it is listed too, or
an alias or a duplicate ties it to what is held out. So new episodes come out as a fresh compile under the
rule of `--write-rule` would split them. What ties names of different splits together is refused, because one
of them would have to move.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from oxcart.manifests.assign import Assignment, SplitEpisode, assign, own_names
from oxcart.manifests.split import SplitRule, listed_names, normalise
from oxcart.shards.errors import ConfigError

FROZEN_BY = ("environment", "instruction", "episode")
"""What has names to list; a rule by source or by dataset tells of each episode alone."""

_MARKS = {split: f"unknown, in {split}" for split in ("val", "test")}
"""Names for held-out episodes that have none: what a duplicate ties to them is held out too."""


def assign_new(
    rule: SplitRule,
    dataset: str,
    there: Sequence[SplitEpisode],
    splits: Sequence[str],
    new: Sequence[SplitEpisode],
    *,
    lists: SplitRule,
    names: Iterable[tuple[str, str]] = (),
) -> Assignment:
    """The split of every episode, those that are there first.

    Args:
        rule: the rule that the dataset was split by.
        dataset: name of the dataset.
        there: episodes that the dataset has.
        splits: the split of each of them.
        new: episodes that the dataset gets.
        lists: a rule whose lists say where new names go.
        names: further names that the dataset has, each with its split.

    Raises:
        ConfigError: new episodes, aliases or lists tie what is in different splits together.
    """
    if rule.by not in FROZEN_BY:
        return assign(rule, dataset, [*there, *new])
    known = [
        episode._replace(environment=_MARKS[split], instructions=(_MARKS[split],))
        if split in _MARKS and not list(own)
        else episode
        for episode, split, own in zip(there, splits, own_names(rule.by, there), strict=True)
    ]
    listed = {split: {*own, *listed_names(lists)[split]} for split, own in listed_names(rule).items()}
    named = zip(own_names(rule.by, known), splits, strict=True)
    for some, split in [*named, *(([name], split) for name, split in names)]:
        listed["train" if split == "val_seen" else split].update(some)
    seen = _seen(there, splits)
    for one in (rule, lists):
        seen |= set(one.val_seen) if isinstance(one.val_seen, tuple) else set()
    frozen = replace(
        rule,
        val=tuple(listed["val"]),
        test=tuple(listed["test"]),
        train=tuple(listed["train"]),
        val_seen=tuple(seen) or None,
    )
    found = assign(frozen, dataset, [*known, *new])
    for episode, was, now in zip(there, splits, found.splits, strict=False):
        if was != now:
            raise ConfigError(f"episode {episode.key} is in {was}; a list or a duplicate says {now}")
    return replace(found, rule=_without_marks(found.rule))


def _seen(there: Sequence[SplitEpisode], splits: Sequence[str]) -> set[str]:
    """Sessions that are held out of train's environments as a whole, and episodes that are."""
    sessions: dict[str, Counter[str]] = defaultdict(Counter)
    for episode, split in zip(there, splits, strict=True):
        sessions[episode.session or episode.key][split] += 1
    keys = {episode.key for episode, split in zip(there, splits, strict=True) if split == "val_seen"}
    return keys | {name for name, found in sessions.items() if found["val_seen"] and not found["train"]}


def _without_marks(rule: SplitRule) -> SplitRule:
    marks = {text for mark in _MARKS.values() for text in (mark, normalise(mark))}
    val, test = (tuple(n for n in listed_names(rule)[split] if n not in marks) for split in _MARKS)
    return replace(rule, val=val, test=test)
