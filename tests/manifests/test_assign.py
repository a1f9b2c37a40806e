"""The assignment, rule by rule and message by message; against an oracle it is in `test_assign_oracle.py`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from oxcart.manifests.assign import Assignment, SplitEpisode, assign
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError


def episode(i: int, environment: str | None = "a", **values: Any) -> SplitEpisode:
    """SplitEpisode i, with a duplicate id of its own and no session."""
    given = {
        "key": f"k{i}",
        "environment": environment,
        "session": None,
        "instructions": (),
        "source_split": "train",
        "duplicate": -1 - i,
    }
    return SplitEpisode(**{**given, **values})


def kitchens(sizes: dict[str, int]) -> list[SplitEpisode]:
    """As many episodes of each environment."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    return [episode(i, name) for i, name in enumerate(names)]


def message(rule: SplitRule, episodes: list[SplitEpisode]) -> str:
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
    def taken(*more: SplitEpisode) -> tuple[str, ...]:
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
