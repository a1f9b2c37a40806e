"""Environments are told apart by name, and names that look like one place are pointed out."""

from __future__ import annotations

import pytest

from audited import check, status
from oxcart.manifests.audit.names import distance, look_alikes
from oxcart.manifests.audit.run import Audit

FILLERS = [("d", f"place_{word}") for word in ("oak", "elm", "fir", "ash", "yew", "box")]


def alike(held: str, train: str, dataset: str = "d") -> str | None:
    rows = look_alikes([("d", held)], [(dataset, train), *FILLERS])
    return rows[0]["why"] if rows else None


@pytest.mark.parametrize(
    ("held", "train", "why"),
    [
        ("Toy-Kitchen 1", "toykitchen1", "equal but for case and punctuation"),
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


def test_environments_of_the_datasets(clean_audit: Audit, leaky_audit: Audit) -> None:
    assert status(clean_audit, "environments") == "passed"
    assert status(leaky_audit, "environments") == "failed"
    assert {row["dataset"] for row in check(leaky_audit, "environments").evidence} == {"oxcart_kitchens"}
