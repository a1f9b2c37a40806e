"""Actions of several steps as one: what they change together, column by column.

Deltas and velocities add up. Of absolute values, and of how far a gripper is open, it is the difference
between frame t + k and frame t. A flag or mode is that of the last step. Of an unknown kind nothing is known,
so such columns are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from oxcart.manifests.columns import Column, parse_columns
from oxcart.manifests.manifest import Manifest
from oxcart.shards.errors import ConfigError
from oxcart.train.data.batch import Batch

Floats = npt.NDArray[np.float32]

ADDED = ("delta", "velocity", "gripper_delta")
"""Kinds whose values are added."""
SUBTRACTED = ("absolute", "gripper_absolute")
"""Kinds whose values are subtracted, that at t from that at t + k."""


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
        kinds = np.array([one.kind for one in columns], np.str_)
        self._added = np.isin(kinds, ADDED)
        self._subtracted = np.isin(kinds, SUBTRACTED)
        self._angle = self._subtracted & np.array([one.unit == "rad" for one in columns], np.bool_)
        self.ahead = int(self._subtracted.any())
        """Steps behind the last action that are needed as well."""

    def __call__(self, values: Floats) -> Floats:
        """The sum [A] of k actions, given these and the `ahead` steps behind them: [k + ahead, A]."""
        steps = values[: len(values) - self.ahead]
        total = np.where(self._added, steps.sum(axis=0), steps[-1])
        change = values[-1] - values[0]
        turned = np.mod(change + np.pi, 2 * np.pi) - np.pi
        found: Floats = np.where(self._subtracted, np.where(self._angle, turned, change), total)
        return found.astype(np.float32)


def summed(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Columns of a sum: of `x` it is `dx`, of `vx` it is `dx`, and a gripper's is a change."""
    found = []
    for one in columns:
        if one.kind == "absolute":
            one = replace(one, name=f"d{one.name}", kind="delta")
        elif one.kind == "velocity":
            one = replace(one, name=f"d{one.name.removeprefix('v')}", kind="delta", unit=None)
        elif one.kind == "gripper_absolute":
            one = replace(one, kind="gripper_delta")
        found.append(one)
    return tuple(found)


def summed_actions(manifest: Manifest) -> dict[str, Any]:
    """Settings of a loader that sums the actions of a dataset, as far as the kinds of columns are known."""
    known = [one.name for one in parse_columns(manifest.action) if one.kind != "unknown"]
    return {"action": "sum", "action_columns": known} if known else {}


def known_actions(batch: Batch) -> torch.Tensor | None:
    """Summed actions [B, A] of a batch in float64, NaN where a step holds none; None without actions."""
    if batch.action is None or batch.action_mask is None:
        return None
    return batch.action.double().masked_fill(~batch.action_mask[:, None], torch.nan)
