"""Actions of several steps as one: what they change together, column by column.

Deltas and velocities add up. Of absolute values, and of how far a gripper is open, it is the difference
between frame t + k and frame t. A flag or mode is that of the last step. Of an unknown kind nothing is known,
so such columns are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError

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


def summable(columns: Sequence[Column]) -> tuple[str, ...]:
    """Names of the columns whose kind is known."""
    return tuple(one.name for one in columns if one.kind != "unknown")
