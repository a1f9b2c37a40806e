"""Actions of several steps as one: what they change together, column by column.

Deltas and velocities add up. Of absolute values, and of how far a gripper is open, it is the last less the
one before the first, which is where the motion began. Of the rest (a flag, a part of a quaternion) it is the
last. Of an unknown kind nothing is known, so such columns are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from oxcart.manifests.columns import SUBTRACTED, TURNS, Column, parse_columns, stem
from oxcart.manifests.manifest import Manifest
from oxcart.shards.errors import ConfigError
from oxcart.train.data.batch import Batch

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

ADDED = ("delta", "velocity", "gripper_delta")
"""Kinds whose values are added."""


class Summing:
    """Sums actions by the kinds of their columns.

    Args:
        columns: columns of the action.
        where: the dataset, for errors.

    Raises:
        ConfigError: a column is of unknown kind.
    """

    def __init__(self, columns: Sequence[Column], where: str) -> None:
        unknown = [one.name for one in columns if one.kind == "unknown"]
        if unknown:
            raise ConfigError(
                f"action='sum': {where} has columns of unknown kind: {', '.join(unknown)}; leave them out "
                "with action_columns, or compile it with --action-kind"
            )
        self._subtracted = [i for i, one in enumerate(columns) if one.kind in SUBTRACTED]
        self._last = [i for i, one in enumerate(columns) if one.kind not in (*ADDED, *SUBTRACTED)]
        turns = [TURNS.get(columns[i].unit or "") for i in self._subtracted]
        self._angles = [i for i, turn in enumerate(turns) if turn is not None]
        self._turns = np.array([turn for turn in turns if turn is not None], np.float32)

    def fill(self, out: Floats, known: Mask, values: Floats, t: int, k: int, acts: tuple[int, int]) -> None:
        """Write the sum of the actions of steps t to t + k - 1, as far as all that it needs hold an action.

        Args:
            out: [A] of zeros: the sum.
            known: [A] of False: which columns are known.
            values: [T, A]: actions of the episode.
            t: first step.
            k: number of steps.
            acts: first step that holds an action, and the step after the last one.
        """
        start, stop = acts
        if t < start or t + k > stop:
            return
        steps = values[t : t + k]
        steps.sum(axis=0, out=out)
        known[:] = True
        if self._last:
            out[self._last] = steps[-1, self._last]
        if not self._subtracted:
            return
        if t == start:
            out[self._subtracted], known[self._subtracted] = 0, False
            return
        change = steps[-1, self._subtracted] - values[t - 1, self._subtracted]
        if self._angles:
            half = self._turns / 2
            change[self._angles] = np.mod(change[self._angles] + half, self._turns) - half
        out[self._subtracted] = change


def summed(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Columns of a sum: of `x` and of `vx` it is called `dx`, and a gripper's is a change.

    A name that another column would get as well stays as it is.
    """
    found = [_summed(one) for one in columns]
    names = [one.name for one in found]
    kept = [
        replace(one, name=old.name) if names.count(one.name) > 1 else one
        for one, old in zip(found, columns, strict=True)
    ]
    return tuple(kept)


def _summed(column: Column) -> Column:
    if column.kind == "gripper_absolute":
        return replace(column, kind="gripper_delta")
    if column.kind not in ("absolute", "velocity"):
        return column
    base = stem(column.name)
    side = next((side for side in ("left_", "right_") if base.startswith(side)), "")
    unit = column.unit if column.kind == "absolute" else None
    return replace(column, name=f"{side}d{base.removeprefix(side)}", kind="delta", unit=unit)


def summed_actions(manifest: Manifest) -> dict[str, Any]:
    """Settings of a loader that sums the actions of a dataset, as far as the kinds of columns are known."""
    known = [one.name for one in parse_columns(manifest.action) if one.kind != "unknown"]
    return {"action": "sum", "action_columns": known} if known else {}


def known_actions(batch: Batch) -> torch.Tensor | None:
    """Summed actions [B, A] of a batch in float64, NaN where they are not known; None without actions."""
    if batch.action is None or batch.action_mask is None:
        return None
    return batch.action.double().masked_fill(~batch.action_mask, torch.nan)
