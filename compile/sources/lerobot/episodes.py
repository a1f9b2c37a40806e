"""The steps of episodes of a LeRobot dataset: the chosen columns, checked against the metadata.

Episodes that follow each other in a file are read at once, since a call of NumPy takes as long for the steps
of one episode as for those of fifty.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from oxcart.compile.sources.base import Floats
from oxcart.compile.sources.lerobot.choices import RobotNumbers
from oxcart.compile.sources.lerobot.metadata import TASK, EpisodeEntry, RobotDataset
from oxcart.compile.sources.lerobot.steps import RobotImages, images, integers, numbers
from oxcart.manifests.canonical import canonical_json

INDICES = ("index", "episode_index", "frame_index", "task_index")
TIME = "timestamp"
OFF = 0.5
"""Steps by which a timestamp may be wrong before it means another step."""

Runs = tuple[tuple[int, str], ...]
"""(step at which it begins, text), one per change of a text."""
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
    instructions: Mapping[str, Runs]
    images: Mapping[str, RobotImages]
    """Camera -> its encoded images, for those that are not in videos."""
    environment: str | None
    """Value of the column that names the environment."""
    success: bool | None
    terminal: bool | None

    def digest(self) -> int:
        """xxh3-64 of all of it."""
        same = _told((*self.instructions.items(), self.environment, self.success, self.terminal))
        for array in self.arrays.values():
            same = xxh3_64_intdigest(array.data, same)
        for encoded in self.images.values():
            same = encoded.digest(same)
        return same


@lru_cache(1 << 12)
def _told(what: tuple[Any, ...]) -> int:
    """xxh3-64 of plain values; most episodes are told the same."""
    return xxh3_64_intdigest(canonical_json(what))


def read_steps(
    dataset: RobotDataset, entries: Sequence[EpisodeEntry], table: pa.Table, columns: RobotColumns
) -> list[RobotSteps]:
    """The steps of episodes that follow each other, from their rows, checked against the metadata.

    Raises:
        ValueError: the rows do not fit the metadata, or a column holds something else than it should. The
            message is about the first episode that this is true of; its step is right if there is no other.
    """
    steps = np.array([entry.steps for entry in entries])
    starts = np.cumsum(steps) - steps
    every = np.arange(table.num_rows) - np.repeat(starts, steps)
    _expect(table, "episode_index", np.repeat([entry.number for entry in entries], steps))
    _expect(table, "frame_index", every)
    _expect(table, "index", np.repeat([entry.index for entry in entries], steps) + every)
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
            _expect_finite(what, arrays[what])
    texts = {name: _changes(dataset, table, name, starts) for name in columns.texts}
    pictures = {camera: images(table, field) for camera, field in columns.images.items()}
    ends = starts + steps
    environments = _environments(entries, table, columns.environment, starts)
    first = starts if columns.success_pattern is not None else ends - 1
    successes = _values(entries, table, columns.success, first)
    terminals = _values(entries, table, columns.terminal, ends - 1)
    found = []
    for entry, start, end, *told in zip(
        entries, starts.tolist(), ends.tolist(), environments, successes, terminals, strict=True
    ):
        environment, success, terminal = told
        runs = {name: _runs(*changes, start, end) for name, changes in texts.items()}
        _check_tasks(entry, runs.get(TASK, ()))
        found.append(
            RobotSteps(
                arrays={what: array[start:end] for what, array in arrays.items()},
                instructions=runs,
                images={camera: some.part(start, end) for camera, some in pictures.items()},
                environment=environment,
                success=_success(success, columns.success_pattern),
                terminal=_flag(terminal),
            )
        )
    return found


def _expect(table: pa.Table, name: str, expected: npt.NDArray[np.int64]) -> None:
    """Refuse a column of indices that does not count as it should."""
    found = integers(table, name)
    wrong = np.flatnonzero(found != expected)
    if wrong.size:
        step = int(wrong[0])
        raise ValueError(f"{name} is {found[step]} at step {step}, expected {expected[step]}")


def _expect_finite(what: str, values: Floats) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        step = int(np.argmin(finite.all(axis=1)))
        raise ValueError(f"{what} is NaN or infinite at step {step}")


Changes = tuple[list[int], list[str]]
"""Rows at which a text begins, and the texts."""


def _changes(dataset: RobotDataset, table: pa.Table, name: str, starts: npt.NDArray[np.int64]) -> Changes:
    """Where the task, the subtask or the text of a column changes; a step may have no subtask and no text."""
    known: Sequence[Any]
    if name in dataset.texts:
        indices, known = integers(table, f"{name}_index"), dataset.texts[name]
        wrong = np.flatnonzero((indices < (0 if name == TASK else -1)) | (indices >= len(known)))
        if wrong.size:
            step = int(wrong[0])
            raise ValueError(
                f"{name}_index is {indices[step]} at step {step}; there are {len(known)} {name}s"
            )
    else:
        indices, known = _coded(table, name)
    rows = _beginnings(indices, starts)
    return rows.tolist(), [_text(known[one]).strip() if one >= 0 else "" for one in indices[rows].tolist()]


def _coded(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """A column as numbers of its values, -1 for none, and the values."""
    coded = table[name].combine_chunks()
    while pa.types.is_list(coded.type) or pa.types.is_fixed_size_list(coded.type):
        coded = coded.flatten()
    if len(coded) != table.num_rows:
        raise ValueError(f"{name} has several values at a step, or none")
    coded = coded.dictionary_encode()
    return np.asarray(pc.fill_null(coded.indices, -1), np.int64), coded.dictionary.to_pylist()


def _beginnings(values: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows whose value differs from the one before, and the first rows of episodes."""
    differs = np.concatenate(([True], values[1:] != values[:-1]))
    differs[starts] = True
    return np.flatnonzero(differs)


def _runs(rows: Sequence[int], texts: Sequence[str], start: int, end: int) -> Runs:
    """The texts of the episode in some rows."""
    runs: list[tuple[int, str]] = []
    for place in range(bisect_left(rows, start), bisect_left(rows, end)):
        if not runs or texts[place] != runs[-1][1]:
            runs.append((rows[place] - start, texts[place]))
    return tuple(runs)


def _check_tasks(entry: EpisodeEntry, runs: Sequence[tuple[int, str]]) -> None:
    for step, text in runs:
        if entry.tasks and text not in entry.tasks:
            raise ValueError(f"its task at step {step}, {text!r}, is none of those of its metadata")


def _environments(
    entries: Sequence[EpisodeEntry],
    table: pa.Table,
    column: SingleValue | None,
    starts: npt.NDArray[np.int64],
) -> list[str | None]:
    """The value of each episode that names its environment, which is the same at every step."""
    if column is None or column[1]:
        values = _values(entries, table, column, starts)
        return [_text(one) if column else None for one in values]
    indices, known = _coded(table, column[0])
    rows = _beginnings(indices, starts)
    texts = [_text(known[one]) if one >= 0 else "" for one in indices[rows].tolist()]
    ends = [*starts[1:].tolist(), table.num_rows]
    runs = [_runs(rows.tolist(), texts, *span) for span in zip(starts.tolist(), ends, strict=True)]
    for run in runs:
        if len(run) > 1:
            (_, first), (step, text), *_ = run
            raise ValueError(f"environment changes from {first!r} to {text!r} at step {step}")
    return [run[0][1] for run in runs]


def _values(
    entries: Sequence[EpisodeEntry],
    table: pa.Table,
    column: SingleValue | None,
    rows: npt.NDArray[np.int64],
) -> list[Any]:
    """The value of a column for each episode: its own, or that of one of the rows."""
    if column is None:
        return [None] * len(entries)
    name, of_episode = column
    found = (
        [entry.columns.get(name) for entry in entries] if of_episode else table[name].take(rows).to_pylist()
    )
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in found]


def _success(value: Any, pattern: str | None) -> bool | None:
    """Whether the episode succeeded: a flag, or whether a text says so."""
    if pattern is None:
        return _flag(value)
    text = _text(value)
    return re.search(pattern, text) is not None if text else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _flag(value: Any) -> bool | None:
    """Whether a value is not 0; None if there is none."""
    if value is None or value != value:
        return None
    if not isinstance(value, bool | int | float):
        raise ValueError(f"a flag holds {str(value)[:20]!r} where a number is expected")
    return bool(value)
