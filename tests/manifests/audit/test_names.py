"""Environments are told apart by name, and names that look like one place are pointed out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audited import audited, check, everywhere, set_path, status
from oxcart.manifests.audit.audit import Audit
from oxcart.manifests.audit.names import distance, look_alikes
from oxcart.manifests.split import SplitRule
from sample_compile import compiled, edited

FILLERS = [("d", f"place_{word}") for word in ("oak", "elm", "fir", "ash", "yew", "box")]


def alike(held: str, train: str, dataset: str = "d") -> str | None:
    rows = look_alikes([("d", held)], [(dataset, train), *FILLERS])
    return rows[0]["why"] if rows else None


@pytest.mark.parametrize(
    ("held", "train", "why"),
    [
        ("Toy-Kitchen 1", "toykitchen1", "equal but for case, white space, _ and -"),
        ("realkitchen", "realkitchne", "nearly the same letters"),
        ("laundry_machine", "laundry_machin", "nearly the same letters"),
        ("datacol1_toykitchen1", "toykitchen1", "both say toykitchen1"),
        ("sink_room8052", "desk_room8052", "both say room8052"),
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
    ],
)
def test_names_of_two_places(held: str, train: str) -> None:
    assert alike(held, train) is None


def test_a_name_in_two_datasets_is_only_suspicious() -> None:
    assert alike("kitchen", "kitchen", dataset="another") == "the same name in two datasets"


def test_a_word_that_all_share_tells_nothing() -> None:
    names = [("d", f"{word}_room1") for word in ("oak", "elm", "fir", "ash", "yew", "box")]
    assert look_alikes(names[:1], names[1:]) == []


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


def test_long_names_are_compared_whole_and_cost_no_more_than_reading_them() -> None:
    """Twelve names of 100,000 letters: the square of one of them would take minutes."""
    long = "kitchen of many words " * 5000
    names = [("d", f"{long}{letter}{long}") for letter in "bcdefghijkl"]
    rows = look_alikes([("d", f"{long}a{long}")], names)
    assert [row["why"] for row in rows] == ["nearly the same letters"] * 11
    assert look_alikes([("d", f"aaa{long}")], [("d", f"{long}zzz"), *FILLERS]) == []


def test_names_that_differ_in_their_writing_come_with_the_aliases_that_join_them(
    kitchens: Path, tmp_path: Path
) -> None:
    change = set_path(lambda path: path.replace("toykitchen2", "Toykitchen1"))
    source = edited(kitchens, tmp_path / "source", change, *everywhere(kitchens))
    compiled(source, tmp_path / "out", rule=SplitRule(val=("toykitchen1",)))
    found = check(audited(tmp_path / "out"), "environments")
    assert found.status == "suspicious"
    assert "to join them in a split rule: aliases: {Toykitchen1: [toykitchen1]}" in found.summary


def test_environments_of_the_datasets(clean_audit: Audit, leaky_audit: Audit) -> None:
    assert status(clean_audit, "environments") == "passed"
    assert status(leaky_audit, "environments") == "failed"
    assert {row["dataset"] for row in check(leaky_audit, "environments").evidence} == {"oxcart_kitchens"}
