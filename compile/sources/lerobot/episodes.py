"""The steps of an episode of a LeRobot dataset: the chosen columns, checked against the metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64

from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.lerobot.choices import RobotNumbers
from oxcart.compile.sources.lerobot.metadata import TASK, EpisodeEntry, RobotDataset
from oxcart.compile.sources.lerobot.steps import images, integers, numbers
from oxcart.manifests.canonical import canonical_json

INDICES = ("index", "episode_index", "frame_index", "task_index")
TIME = "timestamp"
OFF = 0.5
"""Steps by which a timestamp may be wrong before it means another step."""

SingleValue = tuple[str, bool]
"""A column with one value per episode or per step, and whether it is of episodes."""


@dataclass(frozen=True, kw_only=True)
class RobotColumns:
    """The columns that are read of every episode."""

    numbers: Mapping[str, tuple[RobotNumbers, ...]]
    """Array -> features that are concatenated to it."""
    images: Mapping[str, str]
    """Camera -> feature of encoded images."""
    texts: tuple[str, ...]
    """Instructions: texts of the dataset, or columns of text."""
    environment: SingleValue | None
    success: SingleValue | None
    success_pattern: str | None
    """Regular expression that matches where an episode succeeded; None if the column is a flag."""
    terminal: SingleValue | None

    def names(self, dataset: RobotDataset) -> list[str]:
        """Names of the columns of the steps, each once."""
        single = (self.environment, self.success, self.terminal)
        wanted = [
            *(*INDICES, TIME),
            *(one.field for some in self.numbers.values() for one in some),
            *self.images.values(),
            *(f"{name}_index" if name in dataset.texts else name for name in self.texts),
            *(one[0] for one in single if one and not one[1]),
        ]
        return list(dict.fromkeys(wanted))


@dataclass(frozen=True, kw_only=True)
class RobotSteps:
    """The steps of an episode, without what is in videos."""

    arrays: Mapping[str, Floats]
    instructions: Mapping[str, list[tuple[int, str]]]
    images: Mapping[str, list[bytes]]
    """Camera -> its encoded images, for those that are not in videos."""
    environment: str | None
    """Value of the column that names the environment."""
    success: bool | None
    terminal: bool | None

    def digest(self) -> int:
        """xxh3-64 of all of it."""
        told = [self.instructions, self.environment, self.success, self.terminal]
        same = xxh3_64(canonical_json(told))
        for array in self.arrays.values():
            same.update(array.tobytes())
        for encoded in self.images.values():
            for image in encoded:
                same.update(len(image).to_bytes(8, "little"))
                same.update(image)
        return same.intdigest()


def read_steps(
    dataset: RobotDataset, entry: EpisodeEntry, table: pa.Table, columns: RobotColumns
) -> RobotSteps:
    """The steps of an episode from its rows, checked against the metadata.

    Raises:
        ValueError: the rows do not fit the metadata, or a column holds something else than it should.
    """
    every = np.arange(entry.steps)
    _expect(table, "episode_index", np.full(entry.steps, entry.number))
    _expect(table, "frame_index", every)
    _expect(table, "index", entry.index + every)
    late = ~(np.abs(numbers(table, TIME, 1)[:, 0] * dataset.fps - every) <= OFF)
    if late.any():
        step = int(late.argmax())
        raise ValueError(
            f"{TIME} {table[TIME][step].as_py()} at step {step}: at {dataset.fps} fps it would be "
            f"{step / dataset.fps:.3f}"
        )
    arrays = {}
    for what, some in columns.numbers.items():
        parts = [numbers(table, one.field, one.size)[:, one.part or slice(None)] for one in some]
        if parts:
            arrays[what] = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return RobotSteps(
        arrays=arrays,
        instructions={
            name: _named(dataset, entry, table, name)
            if name in dataset.texts
            else _runs(table[name].to_pylist())
            for name in columns.texts
        },
        images={camera: images(table, field) for camera, field in columns.images.items()},
        environment=_environment(_values(entry, table, columns.environment)),
        success=_success(_values(entry, table, columns.success), columns.success_pattern),
        terminal=_flag(_values(entry, table, columns.terminal)),
    )


def _expect(table: pa.Table, name: str, expected: np.ndarray[Any, Any]) -> None:
    """Refuse a column of indices that does not count as it should."""
    found = integers(table, name)
    wrong = np.flatnonzero(found != expected)
    if wrong.size:
        step = int(wrong[0])
        raise ValueError(f"{name} is {found[step]} at step {step}, expected {expected[step]}")


def _named(dataset: RobotDataset, entry: EpisodeEntry, table: pa.Table, what: str) -> list[tuple[int, str]]:
    """(step at which it begins, text), one per change of the task or subtask; a step may have no subtask."""
    indices, known = integers(table, f"{what}_index"), dataset.texts[what]
    wrong = np.flatnonzero((indices < (0 if what == TASK else -1)) | (indices >= len(known)))
    if wrong.size:
        step = int(wrong[0])
        raise ValueError(f"{what}_index is {indices[step]} at step {step}; there are {len(known)} {what}s")
    runs = _runs([known[index] if index >= 0 else "" for index in indices])
    for step, text in runs if what == TASK else ():
        if entry.tasks and text not in entry.tasks:
            raise ValueError(f"its task at step {step}, {text!r}, is none of those of its metadata")
    return runs


def _values(entry: EpisodeEntry, table: pa.Table, column: SingleValue | None) -> list[Any]:
    """The values of a column: one of an episode, or one per step."""
    if column is None:
        return []
    name, of_episode = column
    found = [entry.columns.get(name)] if of_episode else table[name].to_pylist()
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]


def _environment(values: Sequence[Any]) -> str | None:
    """The value that names the environment, which is the same at every step."""
    texts = [_text(one) for one in values]
    for step, text in enumerate(texts):
        if text != texts[0]:
            raise ValueError(f"environment changes from {texts[0]!r} to {text!r} at step {step}")
    return texts[0] if texts else None


def _success(values: Sequence[Any], pattern: str | None) -> bool | None:
    """Whether the episode succeeded: the flag of its last step, or whether a text says so."""
    if pattern is None:
        return _flag(values)
    text = _text(values[0])
    return re.search(pattern, text) is not None if text else None


def _runs(texts: Sequence[Any]) -> list[tuple[int, str]]:
    """(step at which it begins, text), one per change of the text."""
    runs: list[tuple[int, str]] = []
    for step, one in enumerate(texts):
        text = _text(one).strip()
        if not runs or text != runs[-1][1]:
            runs.append((step, text))
    return runs


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _flag(values: Sequence[Any]) -> bool | None:
    """Whether the last value is not 0; None if there is none."""
    if not values or values[-1] is None or values[-1] != values[-1]:
        return None
    if not isinstance(values[-1], bool | int | float):
        raise ValueError(f"a flag holds {str(values[-1])[:20]!r} where a number is expected")
    return bool(values[-1])
