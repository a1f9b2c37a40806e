"""The state of a loader as plain data, and the check that another loader can continue from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from oxcart.manifests.canonical import differences
from oxcart.shards.errors import ConfigError

VERSION = 1
RENAMED = {"window": "block"}
"""Names in states that older versions saved -> what they are called now."""
MOST = 1 << 48
"""Largest position: beyond any run, but small enough that sums of positions fit int64."""


def make_state(
    position: int, settings: Mapping[str, Any], batch_size: int, world_size: int
) -> dict[str, Any]:
    """The state of a loader, as plain JSON."""
    return {
        "version": VERSION,
        "position": position,
        "order": copy.deepcopy(dict(settings)),
        "batch_size": batch_size,
        "world_size": world_size,
    }


def check_state(state: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """Check that a state was taken with the same settings of the order, and return its position.

    Raises:
        ConfigError: the value is not a state, or its order differs; the message says how.
    """
    version, position = state.get("version"), state.get("position")
    if version != VERSION or not isinstance(position, int) or not 0 <= position <= MOST:
        raise ConfigError(
            f"state: expected one of version {VERSION} with a position of 0 to {MOST:,}, got version "
            f"{str(version)[:40]}, position {str(position)[:40]}"
        )
    found = state.get("order", {})
    if isinstance(found, Mapping):
        found = {RENAMED.get(name, name): value for name, value in found.items()}
    if found != settings:
        changed = "; ".join(changes(found, settings))
        raise ConfigError(
            f"state: has another order of samples, so continuing would repeat or skip some: {changed}"
        )
    return position


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two mappings of plain values, in words."""
    return [f"{name} was {old}, is {new}" for name, old, new in differences(before, now)]
