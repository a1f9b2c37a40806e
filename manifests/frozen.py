"""The frozen rule: episodes added later are split so that no episode of the dataset ever changes split.

Every name in the dataset is listed in its split. A new name goes to train, unless it is listed too, or an
alias or a duplicate ties it to something held out. So new episodes are split as a fresh compile under the
rule of `--write-rule` would split them. Anything that would tie names of different splits together is
refused, because one of them would have to move.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from oxcart.manifests.assign import Assignment, SplitEpisode, assign, own_names
from oxcart.manifests.split import SplitRule, listed_names, normalise
from oxcart.shards.errors import ConfigError

FROZEN_BY = ("environment", "instruction", "episode")
"""Values of `by` that give names to list; by source or by dataset, each episode is decided by itself."""

_MARKS = {split: f"unknown, in {split}" for split in ("val", "test")}
"""Substitute names for held-out episodes without one, so that their duplicates are held out too."""


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
    """Assign every episode to a split, existing episodes first.

    Args:
        rule: the rule that the dataset was split by.
        dataset: name of the dataset.
        there: existing episodes of the dataset.
        splits: split of each existing episode.
        new: episodes to be added.
        lists: rule whose lists say where new names go.
        names: further names that the dataset has, each with its split.

    Raises:
        ConfigError: new episodes, aliases or lists tie names of different splits together.
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
    """Sessions in val_seen as a whole, and single episodes in val_seen."""
    sessions: dict[str, Counter[str]] = defaultdict(Counter)
    for episode, split in zip(there, splits, strict=True):
        sessions[episode.session or episode.key][split] += 1
    keys = {episode.key for episode, split in zip(there, splits, strict=True) if split == "val_seen"}
    return keys | {name for name, found in sessions.items() if found["val_seen"] and not found["train"]}


def _without_marks(rule: SplitRule) -> SplitRule:
    marks = {text for mark in _MARKS.values() for text in (mark, normalise(mark))}
    val, test = (tuple(n for n in listed_names(rule)[split] if n not in marks) for split in _MARKS)
    return replace(rule, val=val, test=test)
