"""What the columns of actions and states mean: each has a name and a kind, and a unit and a frame if known.

    dx        delta             m     base    how far to move along x
    yaw       absolute          rad   base    the angle to take
    gripper   gripper_absolute                how far to open

The kind says what may be done with the values of several steps: deltas add up, absolute values are
subtracted, and with values of an unknown kind nothing is done.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from oxcart.shards.choices import did_you_mean, one_of
from oxcart.shards.errors import ConfigError

_CHANGE = re.compile(r"(?P<side>left_|right_|)[dv](?P<stem>x|y|z|roll|pitch|yaw|r[xyz]|joint_\d+)")
"""A column of changes or of velocities, by its name."""

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ARRAYS = ("action", "state", "reward")
"""Arrays that an episode may have, in the order of their members."""
KINDS = ("delta", "absolute", "velocity", "gripper_absolute", "gripper_delta", "other", "unknown")
"""Kinds of columns: a change that a step makes; a value to reach, or as measured; a change per second; how
far a gripper is open or closed; a change of that; a flag, a mode or the like; and not known."""
MOST_COLUMNS = 1 << 16
"""Most numbers per step of a field of which nothing is known."""
STILL = 1e-5
"""Largest value of an action that moves nothing. First actions of BridgeData V2 are zero but for 8e-7."""
AXES = ("x", "y", "z")
"""Axes of a motion. Columns `x`, `dx` and `vx` are along `x`."""
MOVES = ("delta", "velocity", "gripper_delta")
"""Kinds of which a value of zero moves nothing."""
SUBTRACTED = ("absolute", "gripper_absolute")
"""Kinds of which the difference of two values is what changes."""
TURNS = {"rad": 2 * math.pi, "deg": 360.0}
"""Unit -> a full turn; differences of angles go the short way round."""


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
        name = self.name
        if not name or name != name.strip() or not name.isprintable():
            raise ConfigError(f"column name: expected a name such as dx, got {name!r}")
        one_of(f"kind of column {self.name}", self.kind, KINDS)

    @property
    def label(self) -> str:
        """Name and unit, such as `dx (m)`."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def unnamed(field: str, size: int) -> tuple[Column, ...]:
    """Columns of a field of which nothing is known: they are called after it, such as `action[3]`.

    Raises:
        ConfigError: there are so many that they are no action or state, but images or a damaged description.
    """
    if size > MOST_COLUMNS:
        raise ConfigError(
            f"{field}: expected at most {MOST_COLUMNS:,} numbers per step, the source has {size:,}; "
            "leave it out"
        )
    return tuple(Column(name=f"{field}[{i}]") for i in range(size))


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
        raise ConfigError(f"{what}: column {twice[0]!r} is there twice; name the columns so that they differ")


def given(
    columns: Sequence[Column], what: str, names: Sequence[str] | None, kinds: Iterable[str]
) -> tuple[Column, ...]:
    """Columns with the names and kinds that a user gives.

    Args:
        columns: of one array, as they are known.
        what: the array: `action` or `state`; for errors.
        names: a name for every column; None keeps those that are known.
        kinds: texts `COLUMNS=KIND`, where COLUMNS are names or ranges such as `0:3`, with commas between;
            or `KIND` alone for all columns.

    Raises:
        ConfigError: there is no such kind or column, or not one name for each column.
    """
    if names is not None:
        if len(names) != len(columns):
            raise ConfigError(
                f"--{what}-names: expected a name for each of {len(columns)} columns, got {len(names)}"
            )
        columns = [replace(one, name=name.strip()) for one, name in zip(columns, names, strict=True)]
    check_distinct(columns, f"--{what}-names" if names is not None else what)
    changed = list(columns)
    for text in kinds:
        chosen, _, kind = text.rpartition("=")
        one_of(f"--{what}-kind {text}", kind, KINDS)
        for i in _indices(columns, chosen, f"--{what}-kind {text}"):
            unit = changed[i].unit if kind == changed[i].kind else None
            changed[i] = replace(changed[i], kind=kind, unit=unit)
    return tuple(changed)


def _indices(columns: Sequence[Column], chosen: str, option: str) -> list[int]:
    """Indices of the columns that a text names; of all for an empty text."""
    if not columns:
        raise ConfigError(f"{option}: there is no such array; leave the option out")
    if not chosen:
        return list(range(len(columns)))
    there = {one.name: i for i, one in enumerate(columns)}
    found: list[int] = []
    for part in (part.strip() for part in chosen.split(",")):
        numbers = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", part)
        if part in there:
            found.append(there[part])
        elif numbers and int(numbers[1]) < int(numbers[2] or int(numbers[1]) + 1) <= len(columns):
            found += range(int(numbers[1]), int(numbers[2] or int(numbers[1]) + 1))
        else:
            hint = did_you_mean(part, there)
            raise ConfigError(
                f"{option}: no column {part!r}; there are {len(columns)}: {', '.join(there)}{hint}"
            )
    return found


def described(columns: Iterable[Column]) -> list[dict[str, Any]]:
    """Columns as the manifest holds them."""
    return [asdict(one) for one in columns]


def parse_columns(array: Mapping[str, Any] | None) -> tuple[Column, ...]:
    """Columns of an array from its entry in a manifest; none without the array."""
    columns = array["columns"] if array is not None else []
    return tuple(Column(**{name: one[name] for name in ("name", "kind", "unit", "frame")}) for one in columns)


def acting(
    values: npt.NDArray[np.float32], columns: Sequence[Column], no_action: Sequence[str]
) -> tuple[int, int]:
    """The steps of an episode that hold an action: the first of them, and the one after the last.

    The first or the last step holds none if the dataset is known to fill it so, or if it moves nothing: all
    columns of a kind in `MOVES` are within `STILL` of zero, and none is `absolute`, whose zero is a place to
    go to. Where no kind is known, all columns count.

    Args:
        values: actions [T, A].
        columns: the A columns.
        no_action: `first`, `last`: steps that hold no action whatever they hold.
    """
    known = any(one.kind != "unknown" for one in columns)
    still = not any(one.kind == "absolute" for one in columns)
    moving = [i for i, one in enumerate(columns) if still and (one.kind in MOVES or not known)]
    first, last = (bool(moving) and abs(values[i, moving]).max() <= STILL for i in (0, -1))
    start = int("first" in no_action or first)
    stop = len(values) - int("last" in no_action or last)
    return start, max(start, stop)


def motion_columns(columns: Sequence[Column]) -> dict[str, int]:
    """Axis -> index of the column that moves along it; empty unless there are x and y.

    Columns of deltas come before those of velocities, and these before absolute ones.
    """
    for kind in ("delta", "velocity", "absolute"):
        there = {stem(one.name): i for i, one in reversed([*enumerate(columns)]) if one.kind == kind}
        if "x" in there and "y" in there:
            return {axis: there[axis] for axis in AXES if axis in there}
    return {}


def stem(name: str) -> str:
    """What a column is a change or a velocity of, by its name: of `dx` and `vx` it is `x`."""
    found = _CHANGE.fullmatch(name)
    return found["side"] + found["stem"] if found else name
