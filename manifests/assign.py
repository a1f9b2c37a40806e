"""Decide which episode goes to which split: the split rule applied to the episodes of a dataset.

A group must not be divided: episodes of one environment (or instruction, or whatever the rule splits by),
joined with those that the alias table or duplicates tie to it. Budgets are filled group by group in the order
of a hash, so the same rule, dataset name and episodes give the same splits for any order of rows and on any
machine. The trade-off: a budget is an upper bound, not a promise. Groups that are too large are skipped. If
none fits, the smallest is held out although it exceeds the budget (with a warning), because no validation at
all is worse.

The place of a name in the order is the sha256 of canonical JSON in UTF-8: `[salt,dataset,name]` for groups,
and `[salt,dataset,"val_seen",name]` for units of val_seen. A group with several names takes the smallest
hash. A million episodes take 3 s by environment (13 s more for a share of val_seen), 22 s by episode and 32 s
by instruction if all differ, and at most 0.6 GiB besides the episodes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import NamedTuple

from oxcart.manifests.alike import alike, apart, said_alike
from oxcart.manifests.canonical import canonical_json
from oxcart.manifests.split import SPLITS, SplitRule, connected, listed_names, normalise, places
from oxcart.shards.choices import nearest
from oxcart.shards.errors import ConfigError

UNKNOWN = "name the field with --environment FIELD, or use --split-by instruction"
"""Remedy in messages if no environment is known, for most kinds of sources."""


class SplitEpisode(NamedTuple):
    """The facts about an episode that the split rule uses."""

    key: str
    """Stable key of the episode, unique in the dataset."""
    environment: str | None
    """Name of the environment; None if it is unknown."""
    session: str | None
    """Name of the recording session; None if it is unknown."""
    instructions: tuple[str, ...]
    """All instructions of the episode."""
    source_split: str
    """Split of the episode in the source."""
    duplicate: int
    """Equal for episodes with the same encoded images of the primary camera and actions, in step order."""


class Group(NamedTuple):
    """A group and its split, for display."""

    names: tuple[str, ...]
    """Every name of the group in this dataset, sorted; the row without names sums up unknown episodes."""
    split: str
    """Split of the group: train, val or test."""
    episodes: int
    """Number of episodes, including those in val_seen."""
    val_seen: int
    """Number of its episodes that are in val_seen."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The split of every episode."""

    splits: tuple[str, ...]
    """One of `SPLITS` per episode, in the order in which they were given."""
    rule: SplitRule
    """The frozen rule: it lists the names in each split, and gives the same splits again."""
    groups: tuple[Group, ...]
    """Every group, sorted by split and name; when splitting by source, the source's splits."""
    warnings: tuple[str, ...]
    """Warnings about this split, one line each."""


def assign(
    rule: SplitRule, dataset: str, episodes: Sequence[SplitEpisode], *, unknown: str = UNKNOWN
) -> Assignment:
    """Assign every episode of `dataset` to a split; `unknown` is the remedy if no environment is known.

    Under lists of names, what is new goes to train, or to where an alias or a duplicate ties it; a duplicate
    of an episode of a listed session joins it in val_seen, even from train.

    Raises:
        ConfigError: there is a budget and nothing that can be held out, or episodes tie names that the rule
            lists in different splits.
    """
    if rule.by == "source":
        return _by_source(rule, episodes)
    if rule.by == "dataset":
        return _by_dataset(rule, dataset, episodes)

    groups = _groups(rule, episodes)
    split_of, warnings = _listed(rule, dataset, episodes, groups)
    warnings += _budgets(rule, dataset, groups, split_of, unknown)
    splits = [split_of.get(group, "train") for group in groups.of]
    warnings = _warn_unknown(rule, groups, splits) + warnings
    if rule.by == "episode" and len(set(splits)) > 1:
        warnings.append(
            "split by episode: episodes of one environment are in both train and val: validation will look "
            "better than it is"
        )

    seen: set[int] = set()
    names: tuple[str, ...] = ()
    more: list[str] = []
    if isinstance(rule.val_seen, tuple):
        seen, names, more = _seen_listed(rule.by, rule.val_seen, dataset, episodes, groups, splits)
    elif rule.val_seen:
        seen, names, more = _seen_budget(rule, rule.val_seen, dataset, episodes, groups, splits)
    warnings += more
    if rule.by == "environment":
        warnings += _warn_alike(groups)
    for i in seen:
        splits[i] = "val_seen"
    if splits and "train" not in splits:
        warnings.append("train is empty: the rule holds out every episode")

    frozen = {split: set(listed) for split, listed in listed_names(rule).items()}
    for group, own in groups.names.items():
        frozen[split_of.get(group, "train")].update(own)
    resolved = replace(
        rule,
        val=tuple(frozen["val"]),
        test=tuple(frozen["test"]),
        val_seen=names,
        train=tuple(frozen["train"]),
    )
    return Assignment(
        splits=tuple(splits),
        rule=resolved,
        groups=_rows(groups, split_of, seen),
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class _Groups:
    """Groups, each called by the index of its first episode."""

    of: list[int]
    """Group of each episode."""
    known: list[bool]
    """Whether each episode has a name of its own."""
    names: dict[int, tuple[str, ...]]
    """Sorted names of each group that has any, in the order of the first name."""
    episodes: Counter[int]
    """Number of episodes of each group."""
    unknown: Counter[int]
    """Number of episodes of each group without a name."""
    place: dict[str, str]
    """The alias table, as names that stand for places."""
    at: dict[str, int]
    """Name that stands for a place -> its group."""

    def find(self, name: str) -> int | None:
        """The group of a name, or of another name of the same place."""
        return self.at.get(self.place.get(name, name))


def _groups(rule: SplitRule, episodes: Sequence[SplitEpisode]) -> _Groups:
    own = [tuple(names) for names in own_names(rule.by, episodes)]
    place = places(rule)
    of = connected(
        (episode.duplicate, *(place.get(name, name) for name in names))
        for episode, names in zip(episodes, own, strict=True)
    )
    group_of_name = {name: group for group, names in zip(of, own, strict=True) for name in names}
    names_of: dict[int, list[str]] = {}
    for name in sorted(group_of_name):
        names_of.setdefault(group_of_name[name], []).append(name)
    return _Groups(
        of=of,
        known=[bool(names) for names in own],
        names={group: tuple(names) for group, names in names_of.items()},
        episodes=Counter(of),
        unknown=Counter(group for group, names in zip(of, own, strict=True) if not names),
        place=place,
        at={place.get(name, name): group for name, group in group_of_name.items()},
    )


def own_names(by: str, episodes: Sequence[SplitEpisode]) -> Iterable[Iterable[str]]:
    """Names of each episode's groups; empty if they are unknown."""
    if by == "environment":
        return ((e.environment,) if e.environment else () for e in episodes)
    if by == "episode":
        return ((e.key,) for e in episodes)
    texts = {text for e in episodes for text in e.instructions}
    normal = {text: normalise(text) for text in texts}
    return (dict.fromkeys(normal[t] for t in e.instructions if normal[t]) for e in episodes)


def _listed(
    rule: SplitRule, dataset: str, episodes: Sequence[SplitEpisode], groups: _Groups
) -> tuple[dict[int, str], list[str]]:
    """The split of each group that the rule lists, and warnings about names that the dataset lacks."""
    split_of: dict[int, str] = {}
    because: dict[int, str] = {}
    warnings: list[str] = []
    for split, names in listed_names(rule).items():
        absent = []
        for name in names:
            group = groups.find(name)
            if group is None:
                absent.append(name)
            elif split_of.setdefault(group, split) == split:
                because.setdefault(group, name)
            else:
                other = because[group]
                raise ConfigError(
                    f"{other!r} is listed in {split_of[group]} and {name!r} in {split}, but "
                    f"{_tie(rule.by, other, name, episodes, groups)}; list both in one split"
                )
        # A rule can serve several datasets, and train lists them all; a held-out name that is lost matters.
        if absent and split != "train":
            every = (name for own in groups.names.values() for name in own)
            warnings.append(_absent(split, absent, len(names), dataset, every))
    return split_of, warnings


def _tie(by: str, one: str, two: str, episodes: Sequence[SplitEpisode], groups: _Groups) -> str:
    """What ties two names into one group, if it is a single step."""
    place = groups.place
    wanted = {place.get(one, one), place.get(two, two)}
    by_duplicate: dict[int, tuple[str, set[str]]] = {}
    for episode, names in zip(episodes, own_names(by, episodes), strict=True):
        here = wanted & {place.get(name, name) for name in names}
        if len(here) == 2:
            return f"episode {episode.key} has both"
        if here:
            key, before = by_duplicate.setdefault(episode.duplicate, (episode.key, here))
            if before != here:
                return f"episodes {key} and {episode.key} are duplicates"
    return "a chain of duplicates, aliases or shared names ties them"


def _absent(split: str, absent: list[str], of: int, dataset: str, names: Iterable[str]) -> str:
    known = set(names)
    # More than a few suggestions help nobody, and each is a search through all names.
    near = {name: nearest(name, known) for name in absent[:3]}
    hints = ", ".join(f"{found!r} for {name!r}" for name, found in near.items() if found)
    if len(absent) == of:
        what = f"none of the names listed ({of}) is in dataset {dataset!r}, so they hold out nothing"
    else:
        what = f"names listed but not in dataset {dataset!r}"
    return f"{split}: {what}: {_some(absent)}" + (f" (nearest: {hints})" if hints else "")


def _some(names: Sequence[str]) -> str:
    """The first few of the names, quoted, on one line."""
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _budgets(
    rule: SplitRule, dataset: str, groups: _Groups, split_of: dict[int, str], unknown: str
) -> list[str]:
    """Add the groups that the shares of val and test hold out to `split_of`; returns warnings."""
    shares = [(s, v) for s, v in (("val", rule.val), ("test", rule.test)) if isinstance(v, float) and v > 0]
    if not shares:
        return []
    # Fail closed: an episode of unknown environment may be in any place, those of train included.
    free = [g for g in groups.names if g not in split_of and not groups.unknown[g]]
    order = _in_order(((g, name) for g in free for name in groups.names[g]), [rule.salt, dataset])
    in_train = len(free) + sum(split == "train" for split in split_of.values())
    if rule.by != "episode" and (not free or in_train < 2):
        raise ConfigError(_nothing_to_hold_out(rule.by, shares[0][0], free, groups, unknown))
    warnings = []
    everything = dict.fromkeys(order, 0)
    for split, share in shares:
        room = _room(share, len(groups.of))
        taken = _take(room, order, groups.episodes, everything, Counter({0: in_train}))
        for group in taken:
            split_of[group] = split
        order = [group for group in order if group not in split_of]
        in_train -= len(taken)
        got = sum(groups.episodes[group] for group in taken)
        warnings += _warn_budget(split, share, got, len(groups.of), "group")
    return warnings


def _in_order(named: Iterable[tuple[int, str]], prefix: list[str]) -> list[int]:
    """The units, sorted by the smallest hash of their names; units of one name keep their order."""
    # Hash what all names share once: sha256 of canonical_json([*prefix, name]), three times as fast.
    shared = hashlib.sha256(canonical_json(prefix)[:-1] + b",")
    hashes: dict[str, bytes] = {}
    smallest: dict[int, bytes] = {}
    for unit, name in named:
        if (own := hashes.get(name)) is None:
            digest = shared.copy()
            digest.update(_quote(name).encode() + b"]")
            own = hashes[name] = digest.digest()
        if unit not in smallest or own < smallest[unit]:
            smallest[unit] = own
    return sorted(smallest, key=smallest.__getitem__)


_quote = json.JSONEncoder(ensure_ascii=False).encode


def _room(share: float, episodes: int) -> int:
    """Number of episodes in a share, in exact decimals: 0.1 of 30 is 3, although 0.1 * 3 > 0.3 in floats."""
    return floor(Fraction(str(share)) * episodes)


def _take(
    room: int, order: list[int], size: Mapping[int, int], pool: Mapping[int, int], left: Counter[int]
) -> list[int]:
    """The units to hold out: in order, each that still fits; if none fits, the smallest.

    The last unit of a pool is never held out: `left` counts the units that each pool still has in train.
    """
    taken = []
    for unit in order:
        if size[unit] <= room and left[pool[unit]] > 1:
            taken.append(unit)
            room -= size[unit]
            left[pool[unit]] -= 1
    if not taken:
        spare = [unit for unit in order if left[pool[unit]] > 1]
        # min returns the first of equals: ties go by the order.
        taken = [min(spare, key=size.__getitem__)] if spare else []
    return taken


def _warn_budget(split: str, share: float, got: int, episodes: int, unit: str) -> list[str]:
    if not got:
        return [f"{split}: no {unit} is left to hold out, so {split} is empty"]
    if got > _room(share, episodes):
        return [
            f"{split}: no {unit} fits the share {share}, so the smallest is held out: {got} of {episodes} "
            "episodes"
        ]
    return []


def _nothing_to_hold_out(by: str, split: str, free: list[int], groups: _Groups, unknown: str) -> str:
    total = len(groups.of)
    names = sorted(name for own in groups.names.values() for name in own)
    remedy = f"use --split-by {'instruction' if by == 'environment' else 'episode'}, or --{split} none"
    if not total:
        what = "the dataset has no episodes"
    elif not names and by == "environment":
        what = f"all {total} episodes have an unknown environment"
        remedy = f"{unknown}, or --{split} none"
    elif not names:
        what = f"all {total} episodes have no instruction"
    elif len(names) == 1:
        what = f"the dataset has one {by} ({_some(names)}), so none can be held out"
    elif len(groups.names) == 1:
        what = f"duplicates, aliases or shared names make one group of every {by} ({_some(names)})"
    elif free:
        what = f"of every {by}, only {_some(groups.names[free[0]])} can be held out, and train needs one"
    else:
        what = f"every {by} ({_some(names)}) is listed, or has a duplicate among the unknown"
    return f"split by {by}: {what}; {remedy}"


def _warn_unknown(rule: SplitRule, groups: _Groups, splits: list[str]) -> list[str]:
    what = "an unknown environment" if rule.by == "environment" else "no instruction"
    count = Counter(split for split, known in zip(splits, groups.known, strict=True) if not known)
    warnings = []
    for split in (split for split in SPLITS if count[split]):
        one = count[split] == 1
        who = "1 episode has" if one else f"{count[split]} episodes have"
        go = (
            f"stay{'s' * one} in train" if split == "train" else f"go{'es' * one} to {split} with a duplicate"
        )
        warnings.append(f"{who} {what} and {go}")
    return warnings


def _warn_alike(groups: _Groups) -> list[str]:
    """Warnings about names that may mean one place but are not in one group."""
    group_of = {name: group for group, names in groups.names.items() for name in names}
    places = apart(alike(group_of), group_of)
    return [said_alike(places)] if places else []


def _seen_listed(
    by: str,
    listed: tuple[str, ...],
    dataset: str,
    episodes: Sequence[SplitEpisode],
    groups: _Groups,
    splits: list[str],
) -> tuple[set[int], tuple[str, ...], list[str]]:
    """Train episodes whose session or key is listed, their duplicates, and the names of all."""
    names = set(listed)
    here: set[str] = set()
    used: set[str] = set()
    copies: set[int] = set()
    for i, episode in enumerate(episodes):
        named = names.intersection((episode.key, episode.session or episode.key))
        here |= named
        if named and splits[i] == "train" and groups.known[i]:
            used |= named
            copies.add(episode.duplicate)
    warnings = []
    if absent := [name for name in listed if name not in here]:
        every = {name for e in episodes for name in (e.session, e.key) if name}
        warnings.append(_absent("val_seen", absent, len(listed), dataset, every))
    if idle := [name for name in listed if name in here and name not in used]:
        warnings.append(f"val_seen: not in any environment of train, so not held out: {_some(idle)}")
    seen = {i for i, e in enumerate(episodes) if e.duplicate in copies and splits[i] == "train"}
    held = Counter(groups.of[i] for i in seen)
    whole = sorted(groups.names[group][0] for group in held if held[group] == groups.episodes[group])
    if whole and by != "episode":
        warnings.append(f"val_seen: holds out every episode, so train does not see: {_some(whole)}")
    tied = {episodes[i].key for i in seen if names.isdisjoint((episodes[i].key, episodes[i].session))}
    return seen, tuple(sorted(names | tied)), warnings


def _seen_budget(
    rule: SplitRule,
    share: float,
    dataset: str,
    episodes: Sequence[SplitEpisode],
    groups: _Groups,
    splits: list[str],
) -> tuple[set[int], tuple[str, ...], list[str]]:
    """Episodes held out by the share of val_seen, and the names that hold out exactly these."""
    free = [i for i, g in enumerate(groups.of) if splits[i] == "train" and not groups.unknown[g]]
    # Units of one session name in two groups have one hash: the names of the groups decide.
    free.sort(key=lambda i: groups.names[groups.of[i]])
    sessions: dict[int, set[str | None]] = {}
    for i in free:
        sessions.setdefault(groups.of[i], set()).add(episodes[i].session or None)
    by_session = {group for group, found in sessions.items() if len(found) > 1 and None not in found}
    labels = [(episodes[i].session or "") if groups.of[i] in by_session else episodes[i].key for i in free]
    unit_of = connected(
        ((groups.of[i], label), episodes[i].duplicate) for i, label in zip(free, labels, strict=True)
    )
    order = _in_order(zip(unit_of, labels, strict=True), [rule.salt, dataset, "val_seen"])
    pool = {unit: groups.of[free[unit]] for unit in order}
    taken = set(_take(_room(share, len(episodes)), order, Counter(unit_of), pool, Counter(pool.values())))
    seen = {i for i, unit in zip(free, unit_of, strict=True) if unit in taken}

    # A session can go on in groups where it is not held out. There its name would hold out too much, and the
    # episodes are listed instead.
    everywhere = Counter(
        e.session
        for e, split, known in zip(episodes, splits, groups.known, strict=True)
        if split == "train" and known
    )
    held = Counter(episodes[i].session for i in seen)
    names = set()
    for i in seen:
        key, session = episodes[i].key, episodes[i].session
        whole = session and groups.of[i] in by_session and held[session] == everywhere[session]
        names.add(session if session and whole else key)
    return (
        seen,
        tuple(sorted(names)),
        _warn_budget("val_seen", share, len(seen), len(episodes), "session or episode"),
    )


def _rows(groups: _Groups, split_of: dict[int, str], seen: set[int]) -> tuple[Group, ...]:
    held = Counter(groups.of[i] for i in seen)
    rows = [
        Group(names, split_of.get(group, "train"), groups.episodes[group], held[group])
        for group, names in groups.names.items()
    ]
    if nameless := len(groups.of) - sum(row.episodes for row in rows):
        rows.append(Group((), "train", nameless, 0))
    # They come in the order of their names.
    return tuple(row for split in SPLITS for row in rows if row.split == split)


def _by_dataset(rule: SplitRule, dataset: str, episodes: Sequence[SplitEpisode]) -> Assignment:
    listed = listed_names(rule)
    split = next((split for split, names in listed.items() if dataset in names), "train")
    listed[split] = tuple(sorted({*listed[split], dataset}))
    return Assignment(
        splits=(split,) * len(episodes),
        rule=replace(rule, train=listed["train"], val=listed["val"], test=listed["test"]),
        groups=(Group((dataset,), split, len(episodes), 0),),
        warnings=(),
    )


def _by_source(rule: SplitRule, episodes: Sequence[SplitEpisode]) -> Assignment:
    known = {**{split: split for split in SPLITS}, "valid": "val", "validation": "val"}
    count = Counter(e.source_split for e in episodes)
    warnings = [
        "split by source: the source's own splits are kept, and environments and duplicates can be in both "
        "train and val"
    ]
    for name in sorted(count):
        if name not in known:
            what = f"source split {name!r} is none of train, val and test"
            warnings.append(f"{what}: its episodes ({count[name]}) go to train")
    return Assignment(
        splits=tuple(known.get(e.source_split, "train") for e in episodes),
        rule=rule,
        groups=tuple(Group((name,), known.get(name, "train"), count[name], 0) for name in sorted(count)),
        warnings=tuple(warnings),
    )
