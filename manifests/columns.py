"""What the columns of actions and states mean: each has a name and a kind, and a unit and a frame if known.

    dx        delta             m     base    how far to move along x
    yaw       absolute          rad   base    the angle to take
    gripper   gripper_absolute                how far to open

The kind says what may be done with the values of several steps: deltas add up, absolute values are
subtracted, and with values of an unknown kind nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError

KINDS = ("delta", "absolute", "velocity", "gripper_absolute", "gripper_delta", "other", "unknown")
"""Kinds of columns: a change that a step makes; a value to reach, or as measured; a change per second; how
far a gripper is open or closed; a change of that; a flag, a mode or the like; and not known."""
AXES = ("x", "y", "z")
"""Axes of a motion. A column `dx` or `vx` moves along `x`, and so does the difference of a column `x`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One value of an action or a state.

    Raises:
        ConfigError: the name is no name, or there is no such kind.
    """

    name: str
    """Its name, different for each column of an array, such as `dx` or `joint_3`."""
    kind: str = "unknown"
    """One of `KINDS`."""
    unit: str | None = None
    """Its unit, such as `m`, `rad` or `m/s`; None if it has none or it is not known."""
    frame: str | None = None
    """Frame of reference, such as `base` or `gripper`; None if it is not known."""

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip() or not self.name.isprintable():
            raise ConfigError(f"column name: expected a name such as dx, got {self.name!r}")
        one_of(f"kind of column {self.name}", self.kind, KINDS)


def unnamed(fields: Iterable[tuple[str, int, int]]) -> tuple[Column, ...]:
    """Columns of which nothing is known: they are called after their field, `action[3]`.

    Args:
        fields: name of each field, index of its first value, and number of values.
    """
    return tuple(Column(name=f"{name}[{first + i}]") for name, first, count in fields for i in range(count))


def check_distinct(columns: Sequence[Column], what: str) -> None:
    """Refuse columns of which two have one name.

    Args:
        columns: of one array.
        what: the array, for errors.

    Raises:
        ConfigError: two have one name.
    """
    names = [one.name for one in columns]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{what}: column {twice[0]!r} is there twice; expected names that differ")


def described(columns: Iterable[Column]) -> list[dict[str, Any]]:
    """Columns as the manifest holds them."""
    return [asdict(one) for one in columns]


def parse_columns(described: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Columns from what the manifest holds; of a kind of a later version nothing is known."""
    return tuple(
        Column(
            name=one["name"],
            kind=one["kind"] if one["kind"] in KINDS else "unknown",
            unit=one["unit"],
            frame=one["frame"],
        )
        for one in described
    )


def motion_columns(columns: Sequence[Column]) -> dict[str, int]:
    """Axis -> index of the column that moves along it; empty unless there are x and y.

    Columns of deltas come before those of velocities, and these before absolute ones.
    """
    found: dict[str, int] = {}
    for kind, prefix in (("delta", "d"), ("velocity", "v"), ("absolute", "")):
        there = {one.name: i for i, one in enumerate(columns) if one.kind == kind}
        found = {axis: there[f"{prefix}{axis}"] for axis in AXES if f"{prefix}{axis}" in there}
        if "x" in found and "y" in found:
            return found
    return {}
