"""Measure how far the action of each step moves: the annotation by which idle samples are left out.

    measure_actions(Dataset.open("bridge"), leave_out=("gripper",))

The value of a step is the Euclidean norm of what each column changes, in the columns' own units: deltas and
velocities as they are; absolute values, and how far a gripper is open, by their difference to the step before
(angles the short way round). Flags do not count. A step that holds no action has the value of the nearest one
that holds one, and an episode without actions has zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.annotation import ACTION, Annotation
from oxcart.manifests.canonical import sha256_json
from oxcart.manifests.columns import MOVES, SUBTRACTED, TURNS, Column, parse_columns
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.episode import read_arrays
from oxcart.manifests.tables import EPISODES, rows_of
from oxcart.shards.choices import did_you_mean
from oxcart.shards.errors import ConfigError
from oxcart.shards.names import tar_name
from oxcart.shards.prefetch import in_threads

Floats = npt.NDArray[np.float32]


def measure_actions(
    dataset: Dataset,
    *,
    leave_out: Sequence[str] = (),
    workers: int = 1,
    report: Callable[[int], None] = lambda steps: None,
) -> Annotation:
    """Measure the actions of every step of a dataset.

    Args:
        dataset: the dataset to measure.
        leave_out: names of columns that do not count.
        workers: episodes at a time; any number gives the same values.
        report: called with the number of steps measured so far.

    Raises:
        ConfigError: the dataset has no actions, no such column, or columns of unknown kind that count.
        CorruptError: an action does not match its digest.
    """
    if dataset.manifest.action is None:
        raise ConfigError(f"{dataset.store.url}: has no actions; measure its motion instead")
    columns = parse_columns(dataset.manifest.action)
    _check(columns, leave_out, dataset.store.url)
    counted = [
        i for i, one in enumerate(columns) if one.name not in leave_out and one.kind in (*MOVES, *SUBTRACTED)
    ]
    parameters = {"columns": [columns[i].name for i in counted]}
    wanted = ["key", "shard", "steps", *(f"action.{what}" for what in ("offset", "digest", "start", "stop"))]
    width, store = {"action": len(columns)}, dataset.store

    def measure(row: Mapping[str, Any]) -> tuple[str, Floats]:
        read = partial(store.read_range, tar_name(row["shard"]))
        values = read_arrays(read, row, width)["action"]
        return row["key"], norms(values[:, counted], [columns[i] for i in counted], row)

    done = 0
    found: dict[str, Floats] = {}
    calls = (partial(measure, row) for row in rows_of(dataset.table(EPISODES, wanted)))
    for key, values in in_threads(workers, calls, workers):
        found[key] = values
        done += len(values)
        report(done)
    return Annotation(
        name=ACTION,
        producer=sha256_json({"action": parameters}),
        dataset=dataset.manifest.fingerprint,
        parameters=parameters,
        values=found,
    )


def norms(values: Floats, columns: Sequence[Column], row: Mapping[str, Any]) -> Floats:
    """The norm of what the columns change at each step of an episode, [T].

    Args:
        values: actions [T, A].
        columns: the A columns.
        row: `action.start` and `action.stop` of the episode.
    """
    start, stop = row["action.start"], row["action.stop"]
    changes = np.zeros(values.shape, np.float64)
    acting = values[start:stop].astype(np.float64)
    for i, column in enumerate(columns):
        mine = acting[:, i]
        if column.kind in SUBTRACTED:
            mine = np.diff(mine, prepend=mine[:1])
            turn = TURNS.get(column.unit or "")
            mine = mine if turn is None else np.mod(mine + turn / 2, turn) - turn / 2
        changes[start:stop, i] = mine
    found: Floats = np.sqrt(np.square(changes).sum(axis=1)).astype(np.float32)
    if start < stop:
        found[:start], found[stop:] = found[start], found[stop - 1]
    return found


def _check(columns: Sequence[Column], leave_out: Sequence[str], url: str) -> None:
    names = [one.name for one in columns]
    for name in leave_out:
        if name not in names:
            there = ", ".join(names)
            raise ConfigError(
                f"--leave-out: {url} has no column {name!r}, but {there}{did_you_mean(name, names)}"
            )
    unknown = [one.name for one in columns if one.kind == "unknown" and one.name not in leave_out]
    if unknown:
        raise ConfigError(
            f"{url}: columns of unknown kind: {', '.join(unknown)}; name them with --leave-out, or say their "
            "kinds when you compile (--action-kind)"
        )
