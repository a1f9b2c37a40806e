"""What names are alike is decided in one place, and what joins them is ready to be pasted."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oxcart.compile.catalog import lookup
from oxcart.manifests.alike import (
    BESIDE,
    SHOWN,
    SPELLING,
    aliases,
    alike,
    apart,
    folded,
    identifies,
    said_alike,
)
from oxcart.manifests.assign import SplitEpisode, assign
from oxcart.manifests.split import SplitRule, joined, read_rule

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


# The folders that the files of BridgeData V2 name.
BRIDGE = """
    datacol1_toykitchen1 datacol1_toykitchen6 datacol2_folding_table datacol2_folding_table_white_tray
    datacol2_laundry_machine datacol2_robot_desk datacol2_tabletop_dark_wood datacol2_toykitchen1
    datacol2_toykitchen2 datacol2_toykitchen5 datacol2_toykitchen6 datacol2_toykitchen7
    datacol2_toykitchen7_white_tray datacol2_toysink2 deepthought_folding_table deepthought_robot_desk
    deepthought_toykitchen1 deepthought_toykitchen2 laundry_machine minsky_folding_table_white_tray
    realkitchen1_counter realkitchen1_dishwasher tabletop_dark_wood tabletop_light_wood tabletop_white
    tool_chest toykitchen1 toykitchen2 toykitchen2_room8052 toykitchen3 toykitchen4 toykitchen5 toykitchen6
    toykitchen7 toysink1 toysink1_room8052 toysink2_bww toysink3 toysink3_bww toysink4 toysink5 whiteboard
"""
SUGGESTED = """
    laundry_machine datacol2_laundry_machine
    tabletop_dark_wood datacol2_tabletop_dark_wood
    toykitchen1 datacol1_toykitchen1 datacol2_toykitchen1 deepthought_toykitchen1
    toykitchen2 datacol2_toykitchen2 deepthought_toykitchen2 toykitchen2_room8052
    toykitchen5 datacol2_toykitchen5
    toykitchen6 datacol1_toykitchen6 datacol2_toykitchen6
    toykitchen7 datacol2_toykitchen7
    toysink1 toysink1_room8052
    toysink2_bww datacol2_toysink2
    toysink3 toysink3_bww
"""


def test_of_bridge_only_names_of_one_place_are_alike_and_the_catalog_joins_them_all() -> None:
    places = alike(BRIDGE.split())
    assert places == [tuple(line.split()) for line in SUGGESTED.strip().splitlines()]
    known = joined([(name, *others) for name, others in lookup("bridge_dataset").aliases.items()])
    assert apart(places, known) == []


@pytest.mark.parametrize(
    "names",
    [
        ("toykitchen2", "deepthought_toykitchen2"),
        ("toykitchen_2", "Deepthought-ToyKitchen 2"),
        ("toykitchen2", "toykitchen2_room_8052"),
        ("desk", "desk room 12b"),
        ("table1", "franka_table1", "robot_3_table1", "ur5e-table1", "widowx250 table1", "xarm6_table1"),
        ("table1", "robot_a table1", "table1_cam2_robot3"),
        ("datacol1_toykitchen6", "datacol_2_toykitchen6"),
        ("toykitchen2", "datacol1_toykitchen2_room8052"),
        ("bench", "arm_2_bench", "bench_kuka_iiwa"),
        ("office_cam1", "office_cam_2"),
        ("Shelf9", "shelf_9", "sawyer_shelf9"),
    ],
    ids=lambda names: names[-1],
)
def test_names_are_alike_but_for_a_robot_a_room_or_a_camera_and_the_plain_one_is_first(
    names: tuple[str, ...],
) -> None:
    assert alike(["toykitchen1", *reversed(names), "table2", "hall"]) == [(names[0], *sorted(names[1:]))]


@pytest.mark.parametrize(
    "names",
    [
        ("kitchen", "kitchen_2", "kitchen3_room1"),
        ("tabletop", "tabletop_white", "tabletop_dark_wood"),
        ("toykitchen1", "deepthought_toykitchen2", "toykitchen3_room8052"),
        ("toykitchen2", "toykitchen2_room8052", "toykitchen2_room9000"),
        ("toykitchen2_room8052", "toykitchen2_room9000"),
        ("kitchen1", "berkeley_kitchen1", "stanford_kitchen1"),
        ("kitchen1", "toy_kitchen1"),
        ("table_1", "folding_table_1"),
        ("sink3", "a_sink3"),
        ("table1", "house2_table1", "kitchen1_table2", "lab_a_table1", "100_table1"),
        ("hall_room2", "hall_room1_room2"),
        ("house3", "house3_room1", "house3_room2"),
        ("living_room_1", "living_room_2", "dining_room_1"),
        ("robot1", "robot2", "room1", "franka", "ur5"),
        ("robot_desk", "desk", "camera_shelf", "shelf"),
        ("robot1_bin", "robot2_bin"),
        ("franka_v1", "ur5_v1"),
        ("robot1_2021", "robot2_2021"),
        # Laboratories as in DROID and RoboNet, houses as in SPOC, channels of videos.
        ("AUTOLab", "CLVR", "GuptaLab", "ILIAD", "IPRL", "IRIS", "PennPAL", "RAIL", "REAL", "TRI", "WEIRD"),
        ("berkeley", "penn", "stanford", "google", "cmu", "upenn"),
        ("scene_1", "scene_2", "baking_prep_1", "clean_kitchen_1"),
        ("1", "10", "100", "house_1", "house_10"),
        ("UC-9-kyTW8ZkZNDHQJ6FgpwQ", "UC_9-kyTW8ZkZNDHQJ6FgpwR", "robot lab", "the robot lab"),
    ],
    ids=lambda names: names[1],
)
def test_names_that_tell_places_apart_are_not_alike(names: tuple[str, ...]) -> None:
    assert alike(names) == []


WORDS = st.sampled_from(
    ["toykitchen1", "sink", "desk", "2", "franka", "robot_3", "room8", "room_9", "cam1", "deepthought", "bww"]
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=4).map("_".join), max_size=12))
def test_a_name_has_one_place_and_once_joined_it_is_not_said_again(names: list[str]) -> None:
    places = alike(names)
    said = [name for place in places for name in place]
    assert len(said) == len(set(said))
    assert places == alike(reversed(names))
    assert apart(places, joined(places)) == []
    assert apart(places, {}) == places


def test_of_names_that_are_joined_already_one_is_listed() -> None:
    places = alike(["toykitchen2", "deepthought_toykitchen2", "toykitchen2_room8052"])
    known = joined([("deepthought_toykitchen2", "toykitchen2")])
    assert apart(places, known) == [("toykitchen2", "toykitchen2_room8052")]


@pytest.mark.parametrize("word", ["room8052", "toykitchen1", "deepthought2", "laba", "lab12b"])
def test_a_word_with_a_number_says_which(word: str) -> None:
    assert identifies(word)
    assert not any(map(identifies, ("room", "robot", "labs", "8052", "kitchen", "")))


def test_the_line_says_what_the_names_differ_in() -> None:
    spelt, beside = ("Kitchen", "kitchen"), ("toykitchen2", "toykitchen2_room8052")
    both = ("Sink3", "sink3", "sink3_bww")
    for places, said in (
        ([spelt], SPELLING),
        ([beside], BESIDE),
        ([both], f"{SPELLING}, or in {BESIDE}"),
        ([spelt, beside], f"{SPELLING}, or in {BESIDE}"),
    ):
        start = f"environments that may be one place, because their names differ only in {said}; to join them"
        assert said_alike(places) == f"{start} in a split rule: {aliases(places)}"


def test_the_work_grows_as_the_number_of_names() -> None:
    def calls(many: int) -> int:
        names = [
            f"{beside}toykitchen{i}{after}"
            for i in range(many)
            for beside, after in (("", ""), ("datacol1_", ""), ("", "_room8052"), ("deepthought_", ""))
        ]
        made = 0

        def count(_frame: FrameType, event: str, _arg: Any) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            places = alike(names)
        finally:
            sys.setprofile(None)
        assert len(places) == many
        return made

    assert calls(400) < 2.2 * calls(200)


def test_one_long_name_costs_no_more_than_reading_it() -> None:
    """The square of the number of its words would take minutes."""
    long = "room1 kitchen room2 " * 5000
    assert alike([f"{long}1", f"deepthought {long}1", f"{long}2"]) == [(f"{long}1", f"deepthought {long}1")]


def test_the_aliases_are_read_as_they_stand(tmp_path: Path) -> None:
    places = [*alike([*CAFE, "Kitchen", "kitchen", "no", "No", "a: b", "a, b", "x" * 200, "X" * 200])]
    line = aliases(places)
    assert "\n" not in line
    assert unicodedata.is_normalized("NFC", line)  # a terminal or an editor may make one form of two
    (tmp_path / "rule.yaml").write_text(line)
    assert read_rule(tmp_path / "rule.yaml").aliases == {first: tuple(rest) for first, *rest in places}


def test_of_many_places_the_first_are_said(tmp_path: Path) -> None:
    places = alike(name for i in range(SHOWN + 2) for name in (f"place{i}", f"Place{i}"))
    said, rule = said_alike(places).split(" in a split rule: ")
    assert said.endswith("; to join the first 5 (and 2 more places next)")
    assert "(and 1 more place next)" in said_alike(places[1:])
    (tmp_path / "rule.yaml").write_text(rule)
    assert list(read_rule(tmp_path / "rule.yaml").aliases) == [f"Place{i}" for i in range(SHOWN)]


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
    tied = episodes("Kitchen", "kitchen", "office", "hall", duplicate=True)
    for quiet in (
        assign(SplitRule(), "d", tied),
        assign(SplitRule(by="episode"), "d", found),
        assign(SplitRule(), "d", episodes("kitchen", "office", "hall")),
    ):
        assert not [one for one in quiet.warnings if "aliases" in one]


@pytest.mark.parametrize(
    "names",
    [
        ("Kitchen", "kitchen"),
        ("toykitchen2", "deepthought_toykitchen2", "toykitchen2_room8052"),
        (*CAFE, "a: b 1", "franka a: b 1"),
    ],
    ids=lambda names: names[0],
)
def test_the_line_of_a_warning_is_a_rule_that_silences_it(names: tuple[str, ...], tmp_path: Path) -> None:
    found = episodes(*names, "office", "hall")
    (warning,) = (one for one in assign(SplitRule(), "d", found).warnings if "aliases" in one)
    (tmp_path / "rule.yaml").write_text(warning[warning.index("aliases: ") :])
    again = assign(read_rule(tmp_path / "rule.yaml"), "d", found)
    assert not [one for one in again.warnings if "aliases" in one]
