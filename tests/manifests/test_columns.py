"""Columns say what may be done with them, users say what they are, and idle ends of episodes are found."""

from __future__ import annotations

import numpy as np
import pytest

from oxcart.manifests.columns import (
    STILL,
    Column,
    acting,
    check_distinct,
    described,
    given,
    motion_columns,
    parse_columns,
    unnamed,
)
from oxcart.shards.errors import ConfigError

ARM = (
    *(Column(name=name, kind="delta", unit="m", frame="base") for name in ("dx", "dy")),
    Column(name="gripper", kind="gripper_absolute"),
)


def test_columns_of_which_nothing_is_known_are_called_after_their_field() -> None:
    assert unnamed("action", 2) == (Column(name="action[0]"), Column(name="action[1]"))
    assert unnamed("action", 1)[0].kind == "unknown"


def test_a_manifest_gives_columns_back() -> None:
    assert parse_columns({"columns": described(ARM)}) == ARM
    assert parse_columns(None) == ()


@pytest.mark.parametrize("name", ["", " dx", "d\nx"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="column name: expected a name such as dx"):
        Column(name=name)


def test_an_unknown_kind_is_refused_and_the_right_one_suggested() -> None:
    with pytest.raises(ConfigError, match=r"got 'deltas'; did you mean delta\?"):
        Column(name="dx", kind="deltas")


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="action: column 'dx' is there twice"):
        check_distinct([Column(name="dx"), Column(name="dx")], "action")


def test_a_user_names_columns_and_gives_them_kinds() -> None:
    columns = unnamed("action", 4)
    found = given(columns, "action", ["x", "y", "speed", "hand"], ["absolute", "2=velocity", "hand=other"])
    assert [(one.name, one.kind) for one in found] == [
        ("x", "absolute"),
        ("y", "absolute"),
        ("speed", "velocity"),
        ("hand", "other"),
    ]
    assert [one.kind for one in given(columns, "action", None, ["0:3=delta"])] == [
        *("delta",) * 3,
        "unknown",
    ]
    assert [one.kind for one in given(columns, "action", None, ["action[1], 3=delta"])] == [
        *("unknown", "delta", "unknown", "delta"),
    ]


def test_what_a_user_does_not_say_stays() -> None:
    assert given(ARM, "action", None, []) == ARM
    assert given(ARM, "action", None, ["dy=delta"]) == ARM
    changed = given(ARM, "action", None, ["dy=velocity"])[1]
    assert changed == Column(name="dy", kind="velocity", frame="base"), "metres are not metres a second"


@pytest.mark.parametrize(
    ("names", "kinds", "reason"),
    [
        (["a", "b"], [], "--action-names: expected a name for each of 3 columns, got 2"),
        (["a", "b", "a"], [], "--action-names: column 'a' is there twice"),
        (None, ["dx=moves"], "--action-kind dx=moves: expected one of delta, absolute"),
        (None, ["dz=delta"], "--action-kind dz=delta: no column 'dz'; there are 3: dx, dy, gripper"),
        (None, ["3=delta"], "--action-kind 3=delta: no column '3'"),
        (None, ["1:1=delta"], "no column '1:1'"),
        (None, ["1:4=delta"], "no column '1:4'"),
        (None, ["griper=other"], "did you mean gripper?"),
    ],
)
def test_a_kind_for_a_column_that_is_not_there_is_refused(
    names: list[str] | None, kinds: list[str], reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        given(ARM, "action", names, kinds)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kind_without_any_action_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no such array"):
        given((), "action", None, ["delta"])


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        ("gripper dx dy", "delta", {"x": 1, "y": 2}),
        ("dz dy dx", "delta", {"x": 2, "y": 1, "z": 0}),
        ("x y z", "absolute", {"x": 0, "y": 1, "z": 2}),
        ("vx vy", "velocity", {"x": 0, "y": 1}),
        ("dx dy", "velocity", {"x": 0, "y": 1}),
        ("dx", "delta", {}),
        ("dx dy", "unknown", {}),
    ],
)
def test_a_motion_is_read_from_columns_by_name_and_kind(
    names: str, kind: str, expected: dict[str, int]
) -> None:
    assert motion_columns([Column(name=name, kind=kind) for name in names.split()]) == expected


def test_deltas_come_before_absolute_values() -> None:
    pose = [Column(name=name, kind="absolute") for name in ("x", "y")]
    assert motion_columns([*pose, *ARM]) == {"x": 2, "y": 3}


@pytest.mark.parametrize("kind", ["delta", "velocity", "gripper_delta"])
def test_an_end_that_moves_nothing_holds_no_action(kind: str) -> None:
    columns = [Column(name="a", kind=kind), Column(name="gripper", kind="gripper_absolute")]
    moves, rests = [-0.2, 1.0], [STILL / 2, 1.0]
    assert acting(np.array([rests, moves, moves], np.float32), columns, []) == (1, 3)
    assert acting(np.array([moves, moves, rests], np.float32), columns, []) == (0, 2)
    assert acting(np.array([moves, rests, moves], np.float32), columns, []) == (0, 3)
    assert acting(np.array([rests, rests], np.float32), columns, []) == (1, 1)


def test_an_end_that_moves_a_little_holds_an_action() -> None:
    assert acting(np.array([[1e-4, 0, 0], [0.1, 0, 0]], np.float32), ARM, []) == (0, 2)


def test_zeros_may_be_a_pose_to_reach() -> None:
    pose = [Column(name="joint_0", kind="absolute"), Column(name="gripper", kind="gripper_absolute")]
    assert acting(np.zeros((3, 2), np.float32), pose, []) == (0, 3)
    base = [*pose, Column(name="vx", kind="velocity")]
    assert acting(np.zeros((3, 3), np.float32), base, []) == (0, 3), "an arm on wheels that stand"


def test_where_no_kind_is_known_all_columns_count() -> None:
    columns = unnamed("action", 3)
    assert acting(np.array([[0, 0, 1], [0, 0, 0]], np.float32), columns, []) == (0, 1)


def test_a_dataset_may_be_known_to_fill_the_ends() -> None:
    values = np.ones((4, 3), np.float32)
    assert acting(values, ARM, ["last"]) == (0, 3)
    assert acting(values, ARM, ["first", "last"]) == (1, 3)
    assert acting(values[:1], ARM, ["first", "last"]) == (1, 1)
