"""Nothing that is there moves, and what is new comes out as under the rule that the first split wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth import depth
from oxcart.manifests.assign import SplitEpisode, assign
from oxcart.manifests.frozen import assign_new
from oxcart.manifests.split import SplitRule
from oxcart.shards.errors import ConfigError

RULES = [
    SplitRule(val=0.3),
    SplitRule(val=0.2, test=0.2),
    SplitRule(val=("b", "z")),
    SplitRule(val=0.3, aliases={"a": ("b",), "c": ("y", "z")}),
    SplitRule(val=None),
    SplitRule(by="instruction", val=0.3),
    SplitRule(by="episode", val=0.3, test=0.2),
    SplitRule(by="source"),
    SplitRule(by="dataset", val=("bridge",)),
]


def episode(i: int, environment: str | None = "a", **values: Any) -> SplitEpisode:
    """SplitEpisode i, with a duplicate id of its own, a session of two episodes and one instruction."""
    given = {
        "key": f"k{i:03d}",
        "environment": environment,
        "session": f"{environment} {i // 2}",
        "instructions": (f"push {i % 4}",),
        "source_split": ("train", "val")[i % 5 == 0],
        "duplicate": i,
    }
    return SplitEpisode(**{**given, **values})


@st.composite
def grown(draw: st.DrawFn) -> tuple[list[SplitEpisode], list[SplitEpisode]]:
    """Episodes of a dataset, and others that it gets; a few repeat another, and a few are unknown."""
    places = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), min_size=8, max_size=24))
    places[:2] = "a", "b"
    later = draw(
        st.lists(st.sampled_from(["a", "b", "c", "d", "e", "y", "z", None]), min_size=1, max_size=12)
    )
    every = [episode(i, place) for i, place in enumerate([*places, *later])]
    for i in draw(st.sets(st.integers(0, len(every) - 1), max_size=2)):
        every[i] = every[i]._replace(duplicate=every[i // 2].duplicate)
    return every[: len(places)], every[len(places) :]


@depth(150)
@given(rule=st.sampled_from(RULES), episodes=grown())
def test_new_episodes_come_out_as_under_the_rule_that_was_written(
    rule: SplitRule, episodes: tuple[list[SplitEpisode], list[SplitEpisode]]
) -> None:
    there, new = episodes
    try:
        first = assign(rule, "bridge", there)
    except ConfigError:
        return  # nothing can be held out
    try:
        under_it = assign(first.rule, "bridge", [*there, *new])
    except ConfigError:
        with pytest.raises(ConfigError, match="is listed in"):
            assign_new(rule, "bridge", there, first.splits, new, lists=rule)
        return
    try:
        found = assign_new(rule, "bridge", there, first.splits, new, lists=rule)
    except ConfigError:
        moved = under_it.splits[: len(there)] != first.splits
        unknown_held = any(
            e.environment is None and s != "train" for e, s in zip(there, first.splits, strict=True)
        )
        assert moved or unknown_held
        return
    assert found.splits[: len(there)] == first.splits
    assert found.splits == under_it.splits
    assert not any(
        "unknown, in" in name for names in (found.rule.val, found.rule.test) for name in names or ()
    )


def test_what_was_held_out_of_trains_own_environments_stays_so() -> None:
    rule = SplitRule(val=0.2, val_seen=0.2)
    there = [episode(i, "abc"[i % 3], session=f"{'abc'[i % 3]} {i // 6}") for i in range(24)]
    first = assign(rule, "bridge", there)
    seen = {e.session for e, split in zip(there, first.splits, strict=True) if split == "val_seen"}
    assert seen
    new = [episode(100 + i, e.environment, session=e.session) for i, e in enumerate(there)]
    found = assign_new(rule, "bridge", there, first.splits, new, lists=rule)
    assert found.splits == first.splits * 2


def test_an_episode_that_has_left_is_tied_to_nothing() -> None:
    there = [episode(0, "a"), episode(1, "b", duplicate=-1)]
    new = [episode(2, "c", duplicate=1)]
    found = assign_new(SplitRule(), "bridge", there, ["train", "val"], new, lists=SplitRule())
    assert found.splits == ("train", "val", "train")


def test_a_copy_of_what_is_held_out_without_a_name_is_held_out() -> None:
    there = [episode(0, "a"), episode(1, "b"), episode(2, None, duplicate=7)]
    new = [episode(3, "c", duplicate=7)]
    found = assign_new(SplitRule(), "bridge", there, ["train", "val", "val"], new, lists=SplitRule())
    assert found.splits == ("train", "val", "val", "val")


def test_a_copy_of_an_unknown_episode_of_train_cannot_be_held_out() -> None:
    there = [episode(0, "a"), episode(1, "b"), episode(2, None, duplicate=7)]
    new = [episode(3, "b", duplicate=7)]
    with pytest.raises(ConfigError, match="episode k002 is in train; a list or a duplicate says val"):
        assign_new(SplitRule(), "bridge", there, ["train", "val", "train"], new, lists=SplitRule())


def test_other_names_of_what_is_there_count_too() -> None:
    there, new = [episode(0, "a"), episode(1, "b")], [episode(2, "channel")]
    rule = SplitRule()
    found = assign_new(rule, "bridge", there, ["train", "val"], new, lists=rule, names=[("channel", "val")])
    assert found.splits[2] == "val"
    with pytest.raises(ConfigError, match="'a' is listed in train and in val"):
        assign_new(rule, "bridge", there, ["train", "val"], new, lists=rule, names=[("a", "val")])


def test_lists_say_where_new_names_go_and_move_nothing() -> None:
    there, new = [episode(0, "a"), episode(1, "b")], [episode(2, "c"), episode(3, "d")]
    lists = SplitRule(val=("c",), test=("d",))
    found = assign_new(SplitRule(), "bridge", there, ["train", "val"], new, lists=lists)
    assert found.splits == ("train", "val", "val", "test")
    with pytest.raises(ConfigError, match="'a' is listed in train and in test"):
        assign_new(SplitRule(), "bridge", there, ["train", "val"], new, lists=replace(lists, test=("a",)))
    with pytest.raises(ConfigError, match="episode k000 is in train; a list or a duplicate says val_seen"):
        assign_new(SplitRule(), "bridge", there, ["train", "val"], new, lists=SplitRule(val_seen=("a 0",)))
