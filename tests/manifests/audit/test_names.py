"""Environments are told apart by name, and names that look like one place are pointed out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audited import check, everywhere, set_path, status
from oxcart.manifests.alike import BESIDE, SPELLING
from oxcart.manifests.audit import names as names_module
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.episodes import open_datasets
from oxcart.manifests.audit.names import check_environments, distance, look_alikes, places_of, to_join
from oxcart.manifests.audit.result import Check
from oxcart.manifests.split import SplitRule, read_rule
from sample_compile import compiled, edited

FILLERS = [("d", f"place_{word}") for word in ("oak", "elm", "fir", "ash", "yew", "box")]


def looked(held: list[tuple[str, str]], train: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return look_alikes(held, train, places_of([*held, *train]))


def alike(held: str, train: str, dataset: str = "d") -> str | None:
    rows = looked([("d", held)], [(dataset, train), *FILLERS])
    return rows[0]["why"] if rows else None


@pytest.mark.parametrize(
    ("held", "train", "why"),
    [
        ("Toy-Kitchen 1", "toykitchen1", f"equal but for {SPELLING}"),
        ("datacol1_toykitchen1", "toykitchen1", f"equal but for {BESIDE}"),
        ("toykitchen1", "toykitchen1_room8052", f"equal but for {BESIDE}"),
        ("realkitchen", "realkitchne", "nearly the same letters"),
        ("laundry_machine", "laundry_machin", "nearly the same letters"),
        ("toy_kitchen1", "kitchen1", "both say kitchen1"),
        ("sink_room8052", "desk_room_8052", "both say room8052"),
        ("sink_labA", "desk_lab_a", "both say laba"),
        ("deepthought2_desk", "deepthought2_table", "both say deepthought2"),
    ],
)
def test_names_that_may_be_one_place(held: str, train: str, why: str) -> None:
    assert alike(held, train) == why


@pytest.mark.parametrize(
    ("held", "train"),
    [
        ("toykitchen1", "toykitchen2"),
        ("toysink3", "toykitchen3"),
        ("tabletop_white", "tabletop_dark_wood"),
        ("kitchen", "office"),
        ("a1", "a2"),
        ("sink_room_8052", "desk_room_9000"),
        ("sink_lab", "desk_lab"),
    ],
)
def test_names_of_two_places(held: str, train: str) -> None:
    assert alike(held, train) is None


def test_a_name_in_two_datasets_is_only_suspicious() -> None:
    assert alike("kitchen", "kitchen", dataset="another") == "the same name in two datasets"


def test_a_word_that_all_share_tells_nothing() -> None:
    names = [("d", f"{word}_room1") for word in ("oak", "elm", "fir", "ash", "yew", "box")]
    assert looked(names[:1], names[1:]) == []


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "xyz", 3)],
)
def test_distance_counts_letters(one: str, other: str, steps: int) -> None:
    assert distance(one, other, 3) == distance(other, one, 3) == steps
    assert distance(one, other, 0) == min(steps, 1)


@given(st.text("ab1", max_size=8), st.text("ab1", max_size=8), st.integers(0, 2))
def test_distance_is_what_the_whole_table_says(one: str, other: str, most: int) -> None:
    rows = [[i + j if not i * j else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            steps = [
                rows[i - 1][j] + 1,
                rows[i][j - 1] + 1,
                rows[i - 1][j - 1] + (one[i - 1] != other[j - 1]),
            ]
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                steps.append(rows[i - 2][j - 2] + 1)
            rows[i][j] = min(steps)
    assert distance(one, other, most) == min(rows[-1][-1], most + 1)


@pytest.mark.system
def test_long_names_are_compared_whole_and_cost_no_more_than_reading_them() -> None:
    """Twelve names of 100,000 letters: the square of one of them would take minutes."""
    long = "kitchen of many words " * 5000
    names = [("d", f"{long}{letter}{long}") for letter in "bcdefghijkl"]
    rows = looked([("d", f"{long}a{long}")], names)
    assert [row["why"] for row in rows] == ["nearly the same letters"] * 11
    assert looked([("d", f"aaa{long}")], [("d", f"{long}zzz"), *FILLERS]) == []


def test_of_too_many_names_only_alike_ones_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [("d", "Kitchen1"), ("d", "robot3_kitchen1"), ("d", "sink_room8"), ("e", "Hall")]
    train = [("d", "kitchen1"), ("d", "kitchen_1"), ("d", "desk_room8"), ("d", "hall")]
    whole = looked(held, train)
    assert "both say room8" in {row["why"] for row in whole}
    monkeypatch.setattr(names_module, "MOST_PAIRS", 0)
    assert [(row["held out"], row["train"], row["why"]) for row in looked(held, train)] == [
        ("Kitchen1", "kitchen1", f"equal but for {SPELLING}"),
        ("robot3_kitchen1", "kitchen1", f"equal but for {BESIDE}"),
        ("Hall", "hall", f"equal but for {SPELLING}"),
    ]


def test_places_of_two_datasets_that_share_a_name_are_joined_once() -> None:
    held = [("d", "Sink1"), ("e", "sink1"), ("e", "desk")]
    train = [("d", "sink1"), ("e", "sink1_bww"), ("e", "Sink1_bww"), ("d", "desk")]
    places = places_of([*held, *train])
    joined = {one: one for one in (*held, *train)} | {("e", "Sink1_bww"): ("e", "sink1_bww")}
    rows = [row for row in look_alikes(held, train, places) if row["of"] == row["of train"]]
    assert to_join(rows, places, joined) == [("Sink1", "sink1", "Sink1_bww")]


def environments(out: Path) -> Check:
    return check_environments(open_datasets([str(out)]))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Toykitchen1", "aliases: {Toykitchen1: [toykitchen1]}"),
        ("deepthought_toykitchen1", "aliases: {toykitchen1: [deepthought_toykitchen1]}"),
    ],
)
def test_alike_names_come_with_a_rule_that_joins_them(
    kitchens: Path, tmp_path: Path, name: str, line: str
) -> None:
    change = set_path(lambda path: path.replace("toykitchen2", name))
    source = edited(kitchens, tmp_path / "source", change, *everywhere(kitchens))
    rule = SplitRule(val=("toykitchen1",))
    compiled(source, tmp_path / "out", rule=rule)
    found = environments(tmp_path / "out")
    assert (found.status, [row["train"] for row in found.evidence]) == ("suspicious", [name])
    start, said = found.summary.split("to join them in a split rule: ")
    assert (said, start.count("; ")) == (line, 1), "what is alike is said once"
    (tmp_path / "rule.yaml").write_text(said)
    again = replace(rule, aliases=read_rule(tmp_path / "rule.yaml").aliases)
    compiled(source, tmp_path / "again", rule=again)
    assert environments(tmp_path / "again").status == "passed"


def test_environments_of_the_datasets(clean_audit: Audit, leaky_audit: Audit) -> None:
    assert status(clean_audit, "environments") == "passed"
    assert status(leaky_audit, "environments") == "failed"
    assert {row["dataset"] for row in check(leaky_audit, "environments").evidence} == {"oxcart_kitchens"}
