"""The frozen rule: episodes that a dataset gets later are split so that nothing it has ever moves.

Every name that the dataset has is listed where it is; a new one goes to train, unless it is listed too, or
an alias or a duplicate ties it to what is held out. So new episodes come out as a fresh compile under the
rule of `--write-rule` would split them. What ties names of different splits together is refused: one of them
would have to move.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from oxcart.manifests.assign import Assignment, Episode, assign
from oxcart.manifests.split import SplitRule, listed_names, normalise

FROZEN_BY = ("environment", "instruction", "episode")
"""What has names to list; a rule by source or by dataset tells of each episode alone."""

_MARK = "unknown, in {}"
"""Stands for the name of an episode of the dataset that has none, so that it stays where it is."""
_GROUPS = ("train", "val", "test")


def assign_new(
    rule: SplitRule,
    dataset: str,
    there: Sequence[Episode],
    splits: Sequence[str],
    new: Sequence[Episode],
    *,
    lists: SplitRule,
    names: Iterable[tuple[str, str]] = (),
) -> Assignment:
    """The split of every episode, those that are there first.

    Args:
        rule: that the dataset was split by.
        dataset: its name.
        there: its episodes.
        splits: where each of them is.
        new: the episodes that it gets.
        lists: a rule whose lists say where new names go.
        names: more names of what is there, each with its split.

    Raises:
        ConfigError: new episodes, aliases or lists tie names of different splits together.
    """
    if rule.by not in FROZEN_BY:
        return assign(rule, dataset, [*there, *new])
    known = [_named(rule.by, episode, split) for episode, split in zip(there, splits, strict=True)]
    listed = {split: set(own) for split, own in listed_names(rule).items()}
    for split, own in listed_names(lists).items():
        listed[split].update(own)
    for episode, split in zip(known, splits, strict=True):
        listed[_group(split)].update(_names(rule.by, episode))
    for name, split in names:
        listed[_group(split)].add(name)
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
    return replace(found, rule=_without_marks(found.rule))


def _group(split: str) -> str:
    return "train" if split == "val_seen" else split


def _names(by: str, episode: Episode) -> set[str]:
    """What the rule knows an episode by."""
    if by == "episode":
        return {episode.key}
    if by == "environment":
        return {episode.environment} if episode.environment else set()
    return {normalise(text) for text in episode.instructions} - {""}


def _named(by: str, episode: Episode, split: str) -> Episode:
    """The episode, with a name."""
    if _names(by, episode):
        return episode
    mark = _MARK.format(_group(split))
    return episode._replace(environment=mark, instructions=(mark,))


def _seen(there: Sequence[Episode], splits: Sequence[str]) -> set[str]:
    """Sessions that are held out of train's environments as a whole, and episodes that are."""
    sessions: dict[str, Counter[str]] = defaultdict(Counter)
    for episode, split in zip(there, splits, strict=True):
        sessions[episode.session or episode.key][split] += 1
    keys = {episode.key for episode, split in zip(there, splits, strict=True) if split == "val_seen"}
    return keys | {name for name, found in sessions.items() if found["val_seen"] and not found["train"]}


def _without_marks(rule: SplitRule) -> SplitRule:
    marks = {name for split in _GROUPS for name in (_MARK.format(split), normalise(_MARK.format(split)))}
    train, val, test = (
        tuple(name for name in listed if name not in marks)
        for listed in (listed_names(rule)[split] for split in _GROUPS)
    )
    return replace(rule, train=train, val=val, test=test)
