"""The assignment of any rule to any episodes, against a naive oracle and by what must always hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from depth import depth
from oxcart.manifests.assign import Assignment, SplitEpisode, assign
from oxcart.manifests.canonical import sha256_json
from oxcart.manifests.split import SPLITS, SplitRule, listed_names, normalise, places
from oxcart.shards.errors import ConfigError

GROUPED = ("environment", "instruction", "episode")
TEXTS = ("Pick up the cup", "pick up cup!", "open a drawer", "Open Drawer", "wipe", "push", "the", "")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9)

examples = depth(120)


@st.composite
def datasets(draw: st.DrawFn, min_size: int = 0, max_size: int = 16) -> list[SplitEpisode]:
    """Few names, sessions and duplicates, so that they collide."""
    one = st.builds(
        SplitEpisode,
        key=st.just(""),
        environment=st.sampled_from(("a1", "b", "c", "d", "e", "f", None)),
        session=st.sampled_from(("s1", "s2", "s3", "s4", None)),
        instructions=st.lists(st.sampled_from(TEXTS), max_size=2).map(tuple),
        source_split=st.sampled_from(("train", "val", "validation", "test", "extra")),
        duplicate=st.integers(0, 60),
    )
    rows = draw(st.lists(one, min_size=min_size, max_size=max_size))
    return [row._replace(key=f"k{i}") for i, row in enumerate(rows)]


shares = st.sampled_from((*SHARES, None))
aliases = st.sampled_from(
    (
        {},
        {"a1": ("b",), "wipe": ("push",)},
        {"c": ("d", "elsewhere")},
        {"x": ("a1",), "e": ("x",), "x1": ("wipe",), "open drawer": ("x1",)},
    )
)
budget_rules = st.builds(
    SplitRule,
    by=st.sampled_from(GROUPED),
    salt=st.sampled_from(("oxcart", "other", "")),
    val=shares,
    test=shares,
    val_seen=shares,
    aliases=aliases,
)


def own_names(by: str, e: SplitEpisode) -> set[str]:
    if by == "episode":
        return {e.key}
    if by == "environment":
        return {e.environment} if e.environment else set()
    return {normalise(text) for text in e.instructions} - {""}


def naive_groups(rule: SplitRule, episodes: list[SplitEpisode]) -> list[set[int]]:
    """Each episode joins all groups that share a place or a duplicate with it."""
    place = places(rule)
    groups: list[tuple[set[int], set[object]]] = []
    for i, e in enumerate(episodes):
        marks = {e.duplicate, *(place.get(n, n) for n in own_names(rule.by, e))}
        joined = [group for group in groups if group[1] & marks]
        groups = [group for group in groups if not group[1] & marks]
        groups.append(({i}.union(*(g[0] for g in joined)), marks.union(*(g[1] for g in joined))))
    return [group for group, _ in groups]


def naive_hash(*parts: str) -> str:
    text = json.dumps(list(parts), separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == sha256_json(list(parts))
    return sha256_json(list(parts))


def naive(rule: SplitRule, dataset: str, episodes: list[SplitEpisode]) -> list[str] | None:
    """What budgets mean, word for word; None where nothing can be held out."""
    splits = ["train"] * len(episodes)

    def names(group: set[int]) -> set[str]:
        return {n for i in group for n in own_names(rule.by, episodes[i])}

    groups = [g for g in naive_groups(rule, episodes) if all(own_names(rule.by, episodes[i]) for i in g)]
    groups.sort(key=lambda g: min(naive_hash(rule.salt, dataset, n) for n in names(g)))
    train = list(groups)
    if (rule.val or rule.test) and len(groups) < 2 and rule.by != "episode":
        return None
    for split, share in (("val", rule.val), ("test", rule.test)):
        if not share:
            continue
        room, taken = int(Fraction(str(share)) * len(episodes)), 0
        for group in list(train):
            if taken + len(group) <= room and len(train) > 1:
                train.remove(group)
                taken += len(group)
                for i in group:
                    splits[i] = split
        if not taken and len(train) > 1:
            group = min(train, key=len)
            train.remove(group)
            for i in group:
                splits[i] = split

    if rule.val_seen:
        units: list[tuple[str, list[str], list[set[int]], set[int]]] = []
        for group in train:
            sessions = {episodes[i].session for i in group}
            whole = len(sessions) > 1 and None not in sessions
            label = {i: (episodes[i].session if whole else episodes[i].key) for i in group}
            own = [{i} for i in group]
            for i in group:
                for j in group:
                    if label[i] == label[j] or episodes[i].duplicate == episodes[j].duplicate:
                        a, b = (next(u for u in own if x in u) for x in (i, j))
                        if a is not b:
                            own.remove(b)
                            a |= b
            for unit in own:
                first = min(naive_hash(rule.salt, dataset, "val_seen", label[i] or "") for i in unit)
                units.append((first, sorted(names(group)), own, unit))
        units.sort(key=lambda u: u[:2])
        room, taken = int(Fraction(str(rule.val_seen)) * len(episodes)), 0
        for *_, own, unit in units:
            if taken + len(unit) <= room and len(own) > 1:
                own.remove(unit)
                taken += len(unit)
                for i in unit:
                    splits[i] = "val_seen"
        spare = [unit for *_, own, unit in units if len(own) > 1]
        if not taken and spare:
            for i in min(spare, key=len):
                splits[i] = "val_seen"
    return splits


def held_apart(rule: SplitRule, episodes: list[SplitEpisode], splits: tuple[str, ...]) -> None:
    """No place and no duplicate is in two splits; val_seen shares places with train, never duplicates."""
    place = places(rule)
    of_place: dict[str, set[str]] = {}
    of_duplicate: dict[int, set[str]] = {}
    for e, split in zip(episodes, splits, strict=True):
        of_duplicate.setdefault(e.duplicate, set()).add(split)
        for name in own_names(rule.by, e):
            of_place.setdefault(place.get(name, name), set()).add("train" if split == "val_seen" else split)
    assert all(len(found) == 1 for found in [*of_place.values(), *of_duplicate.values()])


def try_assign(rule: SplitRule, episodes: list[SplitEpisode]) -> Assignment | None:
    try:
        return assign(rule, "bridge", episodes)
    except ConfigError as error:
        event(str(error)[:40])
        return None


@examples
@given(rule=budget_rules, episodes=datasets())
def test_budgets_are_the_oracle(rule: SplitRule, episodes: list[SplitEpisode]) -> None:
    found, expected = try_assign(rule, episodes), naive(rule, "bridge", episodes)
    assert (list(found.splits) if found else None) == expected


@examples
@given(rule=budget_rules, episodes=datasets())
def test_what_a_budget_never_does(rule: SplitRule, episodes: list[SplitEpisode]) -> None:
    found = try_assign(rule, episodes)
    if found is None:
        return
    held_apart(rule, episodes, found.splits)
    assert len(found.splits) == len(episodes)
    assert set(found.splits) <= set(SPLITS)
    groups = naive_groups(rule, episodes)
    known = [g for g in groups if all(own_names(rule.by, episodes[i]) for i in g)]
    for group in groups:
        if group not in known:
            assert {found.splits[i] for i in group} == {"train"}
    if known:
        assert any("train" in {found.splits[i] for i in group} for group in known)
    for group in known:
        # A group that is in val_seen is in train too, and no session is in both where all have one.
        inside = {found.splits[i] for i in group}
        assert inside in ({"train"}, {"val"}, {"test"}, {"train", "val_seen"})
        sessions = {episodes[i].session for i in group}
        if inside == {"train", "val_seen"} and len(sessions) > 1 and None not in sessions:
            for session in sessions:
                assert len({found.splits[i] for i in group if episodes[i].session == session}) == 1
    rows = Counter[str]()
    for row in found.groups:
        assert row.names or row.split == "train"
        rows[row.split] += row.episodes - row.val_seen
        rows["val_seen"] += row.val_seen
    assert +rows == Counter(found.splits)
    assert all("\n" not in warning for warning in found.warnings)


@examples
@given(data=st.data(), rule=budget_rules, episodes=datasets())
def test_the_order_of_rows_is_nothing(
    data: st.DataObject, rule: SplitRule, episodes: list[SplitEpisode]
) -> None:
    order = data.draw(st.permutations(range(len(episodes))))
    found, other = try_assign(rule, episodes), try_assign(rule, [episodes[i] for i in order])
    if found is None or other is None:
        assert found is other
        return
    assert other.splits == tuple(found.splits[i] for i in order)
    assert dataclasses.replace(other, splits=found.splits) == found


@examples
@given(rule=budget_rules, episodes=datasets())
def test_the_frozen_rule_gives_the_same_splits(rule: SplitRule, episodes: list[SplitEpisode]) -> None:
    found = try_assign(rule, episodes)
    if found is None:
        return
    again = assign(found.rule, "bridge", episodes)
    assert again.splits == found.splits
    assert again.rule == found.rule
    assert again.groups == found.groups
    for split in SPLITS:
        assert isinstance(getattr(found.rule, split), tuple)
    every = {name for e in episodes for name in own_names(rule.by, e)}
    assert sorted(every) == sorted(name for names in listed_names(found.rule).values() for name in names)


@examples
@given(rule=budget_rules, episodes=datasets(min_size=4, max_size=24), more=st.integers(1, 12))
def test_nothing_listed_moves_when_episodes_come(
    rule: SplitRule, episodes: list[SplitEpisode], more: int
) -> None:
    old = episodes[:-more]
    before = try_assign(rule, old)
    if before is None:
        return
    place = places(rule)
    listed = {
        place.get(name, name): split for split, names in listed_names(before.rule).items() for name in names
    }
    torn = False
    for group in naive_groups(rule, episodes):
        names = {n for i in group for n in own_names(rule.by, episodes[i])}
        torn |= len({listed[place.get(n, n)] for n in names if place.get(n, n) in listed}) > 1
    if torn:
        with pytest.raises(ConfigError, match=r"^'.*' is listed in \w+ and '.*' in \w+, but .*; list both"):
            assign(before.rule, "bridge", episodes)
        event("torn")
        return
    after = assign(before.rule, "bridge", episodes)
    held_apart(rule, episodes, after.splits)
    copies = {e.duplicate for e, s in zip(episodes, after.splits, strict=True) if s == "val_seen"}
    for e, was, now in zip(old, before.splits, after.splits, strict=False):
        if own_names(rule.by, e) and was != now:
            assert (was, now) == ("train", "val_seen")
            assert e.duplicate in copies
    for e, now in zip(episodes[len(old) :], after.splits[len(old) :], strict=True):
        names = {place.get(n, n) for n in own_names(rule.by, e)}
        if not names & set(listed) and now in ("val", "test"):
            group = next(g for g in naive_groups(rule, episodes) if episodes.index(e) in g)
            tied = {place.get(n, n) for i in group for n in own_names(rule.by, episodes[i])}
            assert {listed[n] for n in tied & set(listed)} == {now}


@examples
@given(
    episodes=datasets(),
    by=st.sampled_from(GROUPED),
    lists=st.lists(st.sampled_from(("train", "val", "test")), min_size=8, max_size=8),
    seen=st.lists(st.sampled_from(("s1", "s2", "k1", "k2", "k77")), max_size=3),
)
def test_lists_hold_out_what_they_name(
    episodes: list[SplitEpisode], by: str, lists: list[str], seen: list[str]
) -> None:
    names = {
        "environment": ("a1", *"bcdefgh"),
        "instruction": ("pick up cup", "open drawer", "wipe", "push", "x"),
    }.get(by, [f"k{i}" for i in range(8)])
    named = {
        split: tuple(n for n, s in zip(names, lists, strict=False) if s == split)
        for split in ("train", "val", "test")
    }
    rule = SplitRule(by=by, val_seen=tuple(seen), **named)  # type: ignore[arg-type]
    found = try_assign(rule, episodes)
    if found is None:
        return
    held_apart(rule, episodes, found.splits)
    for split, own in named.items():
        for e, got in zip(episodes, found.splits, strict=True):
            if own_names(by, e) & set(own):
                assert got == split or (split == "train" and got == "val_seen")
    for e, got in zip(episodes, found.splits, strict=True):
        if {e.key, e.session} & set(seen) and own_names(by, e):
            assert got != "train"
    again = assign(found.rule, "bridge", episodes)
    assert (again.splits, again.rule) == (found.splits, found.rule)
