"""The split rule and its file, and the assignment: against a naive oracle, and message by message."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from oxcart.manifests.assign import Assignment, Episode, assign
from oxcart.manifests.canonical import sha256_json
from oxcart.manifests.split import (
    BY,
    SPLITS,
    SplitRule,
    listed_names,
    nearest,
    normalise,
    places,
    read_rule,
    write_rule,
)
from oxcart.shards.errors import ConfigError

GROUPED = ("environment", "instruction", "episode")
TEXTS = ("Pick up the cup", "pick up cup!", "open a drawer", "Open Drawer", "wipe", "push", "the", "")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9)

examples = settings(max_examples=120, deadline=None)


def episode(i: int, environment: str | None = "a", **values: Any) -> Episode:
    """Episode i, with a duplicate id of its own and no session."""
    given = {
        "key": f"k{i}",
        "environment": environment,
        "session": None,
        "instructions": (),
        "source_split": "train",
        "duplicate": -1 - i,
    }
    return Episode(**{**given, **values})


def kitchens(sizes: dict[str, int]) -> list[Episode]:
    """As many episodes of each environment."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    return [episode(i, name) for i, name in enumerate(names)]


@st.composite
def datasets(draw: st.DrawFn, min_size: int = 0, max_size: int = 16) -> list[Episode]:
    """Few names, sessions and duplicates, so that they collide."""
    one = st.builds(
        Episode,
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


def own_names(by: str, e: Episode) -> set[str]:
    if by == "episode":
        return {e.key}
    if by == "environment":
        return {e.environment} if e.environment else set()
    return {normalise(text) for text in e.instructions} - {""}


def naive_groups(rule: SplitRule, episodes: list[Episode]) -> list[set[int]]:
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


def naive(rule: SplitRule, dataset: str, episodes: list[Episode]) -> list[str] | None:
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


def held_apart(rule: SplitRule, episodes: list[Episode], splits: tuple[str, ...]) -> None:
    """No place and no duplicate is in two splits; val_seen shares places with train, never duplicates."""
    place = places(rule)
    of_place: dict[str, set[str]] = {}
    of_duplicate: dict[int, set[str]] = {}
    for e, split in zip(episodes, splits, strict=True):
        of_duplicate.setdefault(e.duplicate, set()).add(split)
        for name in own_names(rule.by, e):
            of_place.setdefault(place.get(name, name), set()).add("train" if split == "val_seen" else split)
    assert all(len(found) == 1 for found in [*of_place.values(), *of_duplicate.values()])


def try_assign(rule: SplitRule, episodes: list[Episode]) -> Assignment | None:
    try:
        return assign(rule, "bridge", episodes)
    except ConfigError as error:
        event(str(error)[:40])
        return None


@examples
@given(rule=budget_rules, episodes=datasets())
def test_budgets_are_the_oracle(rule: SplitRule, episodes: list[Episode]) -> None:
    found, expected = try_assign(rule, episodes), naive(rule, "bridge", episodes)
    assert (list(found.splits) if found else None) == expected


@examples
@given(rule=budget_rules, episodes=datasets())
def test_what_a_budget_never_does(rule: SplitRule, episodes: list[Episode]) -> None:
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
def test_the_order_of_rows_is_nothing(data: st.DataObject, rule: SplitRule, episodes: list[Episode]) -> None:
    order = data.draw(st.permutations(range(len(episodes))))
    found, other = try_assign(rule, episodes), try_assign(rule, [episodes[i] for i in order])
    if found is None or other is None:
        assert found is other
        return
    assert other.splits == tuple(found.splits[i] for i in order)
    assert dataclasses.replace(other, splits=found.splits) == found


@examples
@given(rule=budget_rules, episodes=datasets())
def test_the_frozen_rule_gives_the_same_splits(rule: SplitRule, episodes: list[Episode]) -> None:
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
def test_nothing_listed_moves_when_episodes_come(rule: SplitRule, episodes: list[Episode], more: int) -> None:
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
    episodes: list[Episode], by: str, lists: list[str], seen: list[str]
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


names = st.text(min_size=1)
held_out = st.none() | st.floats(0, 1, exclude_max=True) | st.lists(names).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> SplitRule:
    """Any rule there is."""
    by = draw(st.sampled_from(BY))
    values: dict[str, Any] = {"by": by, "salt": draw(st.text())}
    pool = draw(st.lists(names, unique_by=normalise).map(lambda p: [n for n in p if normalise(n)]))
    cut = sorted(draw(st.lists(st.integers(0, len(pool)), min_size=3, max_size=3)))
    if by != "source":
        values["train"] = tuple(pool[: cut[0]])
        values["val"] = tuple(pool[cut[0] : cut[1]])
        values["test"] = tuple(pool[cut[1] : cut[2]])
        values["aliases"] = {name: (name + " two", "x" + name) for name in pool[cut[2] :]}
    if by not in ("source", "dataset"):
        values["val_seen"] = draw(held_out)
        if draw(st.booleans()):
            values["val"] = draw(st.none() | st.floats(0, 1, exclude_max=True))
    return SplitRule(**values)


@examples
@given(rule=rules())
def test_a_rule_survives_its_file(rule: SplitRule, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "rule.yaml"
    text = write_rule(rule)
    path.write_text(text, encoding="utf-8")
    assert read_rule(path) == rule
    assert write_rule(read_rule(path)) == text
    # Any YAML reader sees the same names.
    loaded = yaml.safe_load(text)
    assert list(loaded) == ["by", "salt", "val", "test", "val_seen", "train", "aliases"]
    assert tuple(loaded["train"]) == rule.train
    assert loaded["salt"] == rule.salt
    assert {name: tuple(others) for name, others in loaded["aliases"].items()} == rule.aliases


@examples
@given(text=st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pick up the CUP.", "pick up cup"),
        ("  pick_up\ta -- cup\n", "pick up cup"),
        ("Ｏｐｅｎ　ｄｏｏｒ", "open door"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("The An A", ""),
        ("…", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_the_file_of_a_rule() -> None:
    rule = SplitRule(
        val=("toysink3", "12", "b"), test=0.05, train=("a: b",), aliases={"b": ("c", "no", "datacol1_b")}
    )
    assert write_rule(rule).splitlines()[1:] == [
        "by: environment",
        "salt: oxcart",
        "val:",
        '  - "12"',
        "  - b",
        "  - toysink3",
        "test: 0.05",
        "val_seen: none",
        "train:",
        '  - "a: b"',
        "aliases:",
        "  b:",
        "    - c",
        "    - datacol1_b",
        '    - "no"',
    ]
    assert write_rule(SplitRule()).splitlines() == [
        "# oxcart split rule. val, test, val_seen: a share of the episodes, a list of names, or none.",
        "by: environment",
        "salt: oxcart",
        "val: 0.1",
        "test: none",
        "val_seen: none",
        "train: []",
        "aliases: {}",
    ]


def test_names_need_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text("val: [12, no, 2021-09-31, 1.50]\ntest: none\nval_seen: 1e-2\nsalt: 7\n")
    rule = read_rule(path)
    assert rule == SplitRule(val=("12", "no", "2021-09-31", "1.50"), val_seen=0.01, salt="7")


FILE_ERRORS = {
    "vall: 0.1": r"unknown key 'vall' \(nearest: val\); expected by, salt, val, test, val_seen, train, alia",
    "by: enviroment": r"by: expected one of environment, .*; got 'enviroment'; did you mean environment\?",
    "val: true": r"val: expected a share of the episodes like 0\.1, a list of names, or none; got 'true'",
    "val: toysink": r"val: expected a share .* got 'toysink'; one name is a list too: \[toysink\]",
    "val: 1.0": r"val: expected a share of the episodes, from 0 to below 1; got 1\.0; a tenth is 0\.1",
    "test: -0.1": r"test: .* got -0\.1",
    "val_seen: nan": r"val_seen: .* got nan",
    "val:": r"val: is empty; give a value, or leave val out",
    "val: {a: b}": r"val: expected a share .* got \{'a': 'b'\}",
    "val: [[a]]": r"val: expected names that are text and not empty, got \['a'\]",
    "val: ['']": r"val: expected names that are text and not empty, got ''",
    "train: a": r"train: expected a list of names, got 'a'",
    "train: none": r"train: expected a list of names, got 'none'",
    "salt: [a]": r"salt: expected text, got \['a'\]",
    "aliases: [a]": r"aliases: expected one place and its other names a line, got \['a'\]",
    "aliases: {a: b}": r"aliases: a: expected a list of names, got 'b'",
    "val: [a]\ntest: [b, a]": r"'a' is listed in val and in test; list it once",
    "val: [a]\nval: [b]": r"line 2: key 'val' is given twice",
    "? [a]\n: b": r"line 1: not a key",
    "by: instruction\nval: [Open a door]\ntrain: [open door!]": r"'open door' is listed in train and in val",
    "val: [b]\ntest: [c]\naliases: {a: [b, c]}": r"'b' is listed in val and 'c' in test, but the alias table",
    "by: instruction\nval: [the]": r"val: expected names that are text and not empty, got 'the'",
    "by: dataset\nval: 0.1": r"val: splitting by dataset holds out whole datasets, got 0\.1; list names of",
    "by: dataset\nval_seen: 0.1": r"val_seen: splitting by dataset .*; leave val_seen out",
    "by: source\nval: 0.1": r"val: splitting by source keeps the source's own .* got 0\.1; leave val out",
    "by: source\ntrain: [a]": r"train: splitting by source keeps",
    "val: [a": r"line 2, column 1: not YAML: did not find expected ',' or '\]'",
    "val: \x00": r"not YAML: .+",
    "--- a\n--- b": r"line 2, column 1: not YAML: .+",
    "": r"expected keys such as `by: environment` and `val: 0\.1`, got None",
    "- a": r"expected keys such as .* got \['a'\]",
}


@pytest.mark.parametrize(("text", "message"), FILE_ERRORS.items())
def test_errors_of_a_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rule.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^split rule .*rule.yaml: {message}") as raised:
        read_rule(path)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^split rule .*none\.yaml: no such file or directory$"):
        read_rule(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"is a directory$"):
        read_rule(tmp_path)
    (tmp_path / "latin").write_bytes(b"val: [\xe9]")
    with pytest.raises(ConfigError, match=r"not UTF-8 text at byte 6$"):
        read_rule(tmp_path / "latin")


@pytest.mark.parametrize("value", [True, "a", 1, -0.5, float("nan"), object(), {"a"}, [1]])
@pytest.mark.parametrize("split", ["val", "test", "val_seen"])
def test_values_that_hold_out_nothing_sensible(split: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{split}: expected "):
        SplitRule(**{split: value})  # type: ignore[arg-type]


def test_a_rule_is_in_canonical_order() -> None:
    assert SplitRule(val=("b", "a", "b")).val == ("a", "b")
    assert SplitRule(val=0).val == 0.0
    assert SplitRule().val == 0.1
    assert SplitRule(by="dataset").val is SplitRule(by="source").val is None
    rule = SplitRule(by="instruction", val=("Open the door",), aliases={"The door": ("A Gate", "gate")})
    assert (rule.val, rule.aliases) == (("open door",), {"door": ("gate",)})


def message(rule: SplitRule, episodes: list[Episode]) -> str:
    with pytest.raises(ConfigError) as raised:
        assign(rule, "bridge", episodes)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nothing_can_be_held_out() -> None:
    env, text = SplitRule(), SplitRule(by="instruction")
    assert message(env, kitchens({"toysink2_bww": 3})) == (
        "split by environment: the dataset has one environment ('toysink2_bww'), so none can be held out; "
        "use --split-by instruction, or --val none"
    )
    assert message(env, [episode(i, None) for i in range(25)]) == (
        "split by environment: all 25 episodes have an unknown environment; name the field with "
        "--environment FIELD, or use --split-by instruction, or --val none"
    )
    assert message(dataclasses.replace(env, aliases={"a": ("b",)}), kitchens({"a": 1, "b": 1})) == (
        "split by environment: duplicates, aliases or shared names make one group of every environment "
        "('a', 'b'); use --split-by instruction, or --val none"
    )
    both = [episode(0, "a", duplicate=1), episode(1, None, duplicate=1), episode(2, "b")]
    assert message(env, both) == (
        "split by environment: of every environment, only 'b' can be held out, and train needs one; "
        "use --split-by instruction, or --val none"
    )
    assert message(env, [*both[:2], episode(2, "b", duplicate=1)]).startswith("split by environment: dupl")
    tied = [*both[:2], episode(2, "b", duplicate=2), episode(3, None, duplicate=2)]
    assert "every environment ('a', 'b') is listed, or has a duplicate among the unknown;" in message(
        env, tied
    )
    assert message(env, []).startswith("split by environment: the dataset has no episodes; ")
    assert message(text, kitchens({"a": 2})) == (
        "split by instruction: all 2 episodes have no instruction; use --split-by episode, or --val none"
    )
    assert message(text, [episode(0, instructions=("Wipe", "wipe it", "the")), episode(1)]) == (
        "split by instruction: duplicates, aliases or shared names make one group of every instruction "
        "('wipe', 'wipe it'); use --split-by episode, or --val none"
    )
    assert message(SplitRule(val=None, test=0.1), kitchens({"a": 2})).endswith(
        "use --split-by instruction, or --test none"
    )
    assert set(assign(SplitRule(val=None), "bridge", kitchens({"a": 2})).splits) == {"train"}
    assert set(assign(SplitRule(val=0.0), "bridge", kitchens({"a": 2})).splits) == {"train"}


def test_ties_across_listed_splits() -> None:
    rule = SplitRule(val=("a",), test=("b",), train=("c",))
    twins = [episode(0, "a", duplicate=7), episode(1, "b", duplicate=7)]
    assert message(rule, twins) == (
        "'a' is listed in val and 'b' in test, but episodes k0 and k1 are duplicates; list both in one split"
    )
    chain = [
        *twins[:1],
        episode(1, "x", duplicate=7),
        episode(2, "x", duplicate=8),
        episode(3, "c", duplicate=8),
    ]
    assert message(rule, chain) == (
        "'c' is listed in train and 'a' in val, but a chain of duplicates, aliases or shared names ties "
        "them; list both in one split"
    )
    texts = SplitRule(by="instruction", val=("wipe",), train=("scrub",))
    assert message(texts, [episode(0, instructions=("Wipe!", "Scrub"))]) == (
        "'scrub' is listed in train and 'wipe' in val, but episode k0 has both; list both in one split"
    )


def test_one_name_takes_the_whole_group() -> None:
    rule = SplitRule(val=("kitchen",), aliases={"kitchen": ("a", "b")})
    episodes = [
        episode(0, "a"),
        episode(1, "b"),
        episode(2, "c", duplicate=7),
        episode(3, "a", duplicate=7),
        episode(4, None, duplicate=7),
        episode(5, "d"),
    ]
    found = assign(rule, "bridge", episodes)
    assert found.splits == ("val",) * 5 + ("train",)
    assert found.rule.val == ("a", "b", "c", "kitchen")
    assert found.rule.train == ("d",)
    assert found.warnings == ("1 episode has an unknown environment and goes to val with a duplicate",)
    assert assign(found.rule, "bridge", [*episodes, episode(6, "e")]).splits[-1] == "train"


def test_unknown_episodes_stay_in_train() -> None:
    episodes = [*kitchens({"a": 4, "b": 4}), *(episode(i, None) for i in range(8, 20))]
    found = assign(SplitRule(val=0.9), "bridge", episodes)
    assert set(found.splits[8:]) == {"train"}
    assert found.warnings == ("12 episodes have an unknown environment and stay in train",)
    assert found.groups[1] == ((), "train", 12, 0)
    assert assign(SplitRule(), "bridge", [*kitchens({"a": 9, "b": 1}), episode(11, None)]).warnings == (
        "1 episode has an unknown environment and stays in train",
    )


def test_a_budget_is_exact_and_says_when_it_is_not_kept() -> None:
    # 0.29 * 100 is 28.999999999999996.
    assert assign(SplitRule(by="episode", val=0.29), "b", kitchens({"a": 100})).splits.count("val") == 29
    found = assign(SplitRule(val=0.05, test=0.2), "bridge", kitchens({"a": 12, "b": 8}))
    assert Counter(found.splits) == {"train": 12, "val": 8}
    assert found.warnings == (
        "val: no group fits the share 0.05, so the smallest is held out: 8 of 20 episodes",
        "test: no group is left to hold out, so test is empty",
    )
    kept = assign(SplitRule(val=0.9, train=("a",)), "bridge", kitchens({"a": 12, "b": 8}))
    assert Counter(kept.splits) == {"train": 12, "val": 8}


def test_names_that_the_dataset_does_not_have() -> None:
    episodes = kitchens({"toysink2": 2, "toysink3": 2, "table": 2})
    found = assign(SplitRule(val=("toysink2", "toysnk3", "zzz"), train=("gone",)), "bridge", episodes)
    assert found.splits == ("val",) * 2 + ("train",) * 4
    assert found.warnings == (
        "val: names listed but not in dataset 'bridge': 'toysnk3', 'zzz' (nearest: 'toysink3' for 'toysnk3')",
    )
    assert found.rule.val == ("toysink2", "toysnk3", "zzz")
    assert assign(SplitRule(val=("p", "q", "r", "s")), "bridge", episodes).warnings == (
        "val: none of the names listed (4) is in dataset 'bridge', so they hold out nothing: "
        "'p', 'q', 'r' and 1 more",
    )
    everything = SplitRule(val=("toysink2", "toysink3", "table"))
    assert assign(everything, "bridge", episodes).warnings == (
        "train is empty: the rule holds out every episode",
    )
    assert nearest("a1", (f"a{i}" for i in range(30_000))) is None


def test_by_instruction_and_by_episode() -> None:
    episodes = [
        episode(0, instructions=("Open the door", "pull the handle")),
        episode(1, instructions=("open door!",)),
        episode(2, instructions=("Pull handle",)),
        episode(3, instructions=("wipe",)),
        episode(4, instructions=("",)),
    ]
    found = assign(SplitRule(by="instruction", val=("Pull the handle",)), "bridge", episodes)
    assert found.splits == ("val", "val", "val", "train", "train")
    assert found.rule.val == ("open door", "pull handle")
    assert found.warnings == ("1 episode has no instruction and stays in train",)
    found = assign(SplitRule(by="episode", val=0.5), "bridge", episodes)
    assert Counter(found.splits) == {"train": 3, "val": 2}
    assert found.warnings == (
        "split by episode: episodes of one environment are in both train and val: validation will look "
        "better than it is",
    )


def test_by_dataset() -> None:
    rule = SplitRule(by="dataset", val=("bridge", "other"), test=("third",))
    episodes = kitchens({"a": 2})
    found = assign(rule, "bridge", episodes)
    assert (found.splits, found.rule, found.warnings) == (("val", "val"), rule, ())
    found = assign(rule, "fourth", episodes)
    assert found.splits == ("train", "train")
    assert found.rule == dataclasses.replace(rule, train=("fourth",))
    assert found.groups == ((("fourth",), "train", 2, 0),)


def test_by_source() -> None:
    splits = ("train", "val", "valid", "validation", "test", "extra")
    episodes = [episode(i, source_split=split, duplicate=1) for i, split in enumerate(splits)]
    found = assign(SplitRule(by="source"), "bridge", episodes)
    assert found.splits == ("train", "val", "val", "val", "test", "train")
    assert found.rule == SplitRule(by="source")
    assert found.warnings == (
        "split by source: the source's own splits are kept, and environments and duplicates can be in both "
        "train and val",
        "source split 'extra' is none of train, val and test: its episodes (1) go to train",
    )
    assert sum(row.episodes for row in found.groups) == 6


def test_val_seen_of_listed_sessions() -> None:
    episodes = [
        episode(0, "a", session="s1"),
        episode(1, "a", session="s2", duplicate=7),
        episode(2, "a", session="s3", duplicate=7),
        episode(3, "b", session="s4"),
        episode(4, None, session="s2"),
        episode(5, "c", session="s5"),
    ]
    rule = SplitRule(val=("b",), val_seen=("s2", "s4", "zz", "k5"))
    found = assign(rule, "bridge", episodes)
    assert found.splits == ("train", "val_seen", "val_seen", "val", "train", "val_seen")
    assert found.rule.val_seen == ("k2", "k5", "s2", "s4", "zz")
    assert found.warnings == (
        "1 episode has an unknown environment and stays in train",
        "val_seen: names listed but not in dataset 'bridge': 'zz'",
        "val_seen: not in any environment of train, so not held out: 's4'",
        "val_seen: holds out every episode, so train does not see: 'c'",
    )


def test_val_seen_lists_episodes_where_their_session_goes_on_elsewhere() -> None:
    def taken(*more: Episode) -> tuple[str, ...]:
        found = assign(SplitRule(val=None, val_seen=0.34), "bridge", [*sessions, *more])
        assert assign(found.rule, "bridge", [*sessions, *more]).splits == found.splits
        assert isinstance(found.rule.val_seen, tuple)
        return found.rule.val_seen

    sessions = [episode(0, "a", session="s1"), episode(1, "a", session="s2"), episode(2, "a", session="s3")]
    (session,) = taken()
    key = next(e.key for e in sessions if e.session == session)
    assert taken(episode(3, "b", session=session)) == (key,)


def test_a_session_name_in_two_environments_is_drawn_in_any_order_of_rows() -> None:
    both = [episode(i, "ab"[i // 2], session=f"s{i % 2}") for i in range(4)]
    rule = SplitRule(val=None, val_seen=0.25)
    assert assign(rule, "bridge", both).splits == assign(rule, "bridge", both[::-1]).splits[::-1]


def test_a_share_of_val_seen_that_cannot_be_held_out() -> None:
    found = assign(SplitRule(val=None, val_seen=0.5), "bridge", kitchens({"a": 1, "b": 1}))
    assert found.warnings == ("val_seen: no session or episode is left to hold out, so val_seen is empty",)


def golden(salt: str) -> Assignment:
    """Nine kitchens, of which duplicates tie two, with up to four sessions each."""
    kitchen = [f"kitchen{i * i % 17}" for i in range(60)]
    episodes = [
        episode(i, kitchen[i], session=f"{kitchen[i]}/day{i // 17}", duplicate=i - (i == 31))
        for i in range(60)
    ]
    return assign(SplitRule(salt=salt, val=0.2, test=0.15, val_seen=0.1), "bridge_dataset", episodes)


def test_the_splits_of_people_never_change() -> None:
    """If this fails, every user's val set has moved: change the code, not the expectation."""
    found = golden("oxcart")
    assert found.rule.val == ("kitchen0", "kitchen15")
    assert found.rule.test == ("kitchen2",)
    assert found.rule.val_seen == ("kitchen16/day2", "kitchen4/day2", "kitchen9/day0")
    assert found.rule.train == ("kitchen1", "kitchen13", "kitchen16", "kitchen4", "kitchen8", "kitchen9")
    assert Counter(found.splits) == {"train": 36, "val": 11, "test": 7, "val_seen": 6}
    assert golden("other").rule.val != found.rule.val
