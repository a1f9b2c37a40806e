"""What names are alike is decided in one place, and what joins them is ready to be pasted."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.manifests.alike import SHOWN, aliases, alike, folded, said_alike
from oxcart.manifests.assign import SplitEpisode, assign
from oxcart.manifests.split import SplitRule, read_rule

CAFE = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")


@pytest.mark.parametrize(
    "names",
    [
        ("KITCHEN", "Kitchen", "kitchen"),
        CAFE[::-1],
        ("toy kitchen", "toy-kitchen", "toy_kitchen", "toykitchen"),
        ("stra\u00dfe", "strasse"),
        ("lab 1 1", "lab_1-1", "lab-1_1"),
        ("lab 7", "lab-7", "lab7"),
        ("zero\u200bwidth", "zerowidth"),
        ("\uff2b\uff29\uff34", "kit"),
    ],
    ids=lambda names: names[0],
)
def test_names_that_differ_in_their_writing_are_alike(names: tuple[str, ...]) -> None:
    assert alike([*names, "office", "sink 3"]) == [tuple(sorted(names))]


@pytest.mark.parametrize(
    "names",
    [
        ("toykitchen1", "toykitchen2"),
        ("lab 1 1", "lab 11"),
        ("--", "__"),
        ("\u0915\u093f", "\u0915\u0940"),
        ("C", "C#", "C++", "c*"),
        ("1", "+1", "-1"),
        ("lab 1", "lab -1", "lab +1"),
        ("10", "10%"),
        ("1.5", "1,5", "1 5", "15"),
    ],
    ids=lambda names: names[0],
)
def test_names_that_say_different_things_are_not(names: tuple[str, ...]) -> None:
    assert alike(names) == []


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_name_has_a_form_and_is_alike_to_its_other_forms(name: str) -> None:
    assert folded(name)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert folded(unicodedata.normalize(form, name)) == folded(name)


def test_the_aliases_are_read_as_they_stand(tmp_path: Path) -> None:
    places = [*alike([*CAFE, "Kitchen", "kitchen", "no", "No", "a: b", "a, b", "x" * 200, "X" * 200])]
    line = aliases(places)
    assert "\n" not in line
    assert unicodedata.is_normalized("NFC", line)  # a terminal or an editor may make one form of two
    (tmp_path / "rule.yaml").write_text(line)
    assert read_rule(tmp_path / "rule.yaml").aliases == {first: tuple(rest) for first, *rest in places}


def test_of_many_places_the_first_are_said() -> None:
    places = alike(name for i in range(SHOWN + 2) for name in (f"room{i}", f"Room{i}"))
    assert aliases(places).endswith("Room4: [room4]} (and 2 more places)")


def episodes(*names: str, duplicate: bool = False) -> list[SplitEpisode]:
    return [
        SplitEpisode(
            key=f"k{i}",
            environment=name,
            session=None,
            instructions=(),
            source_split="train",
            duplicate=7 if duplicate and name.lower() == "kitchen" else i,
        )
        for i, name in enumerate(names)
    ]


def test_an_assignment_that_splits_them_apart_warns() -> None:
    found = episodes("Kitchen", "kitchen", "office", "hall")
    assert said_alike([("Kitchen", "kitchen")]) in assign(SplitRule(), "d", found).warnings
    assert "aliases: {Kitchen: [kitchen]}" in said_alike([("Kitchen", "kitchen")])
    together = SplitRule(aliases={"kitchen": ("Kitchen",)})
    tied = episodes("Kitchen", "kitchen", "office", "hall", duplicate=True)
    for quiet in (
        assign(together, "d", found),
        assign(SplitRule(), "d", tied),
        assign(SplitRule(by="episode"), "d", found),
        assign(SplitRule(), "d", episodes("kitchen", "office", "hall")),
    ):
        assert not [one for one in quiet.warnings if "aliases" in one]
