"""Where a loader is, as plain data, and whether another loader can go on from there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from oxcart.manifests.canonical import differences
from oxcart.shards.errors import ConfigError

VERSION = 1
MOST = 1 << 48
"""Samples at most that a loader has handed out: so many that no run comes there, so few that sums of them fit
int64."""


def make_state(
    position: int, settings: Mapping[str, Any], batch_size: int, world_size: int
) -> dict[str, Any]:
    """Plain JSON."""
    return {
        "version": VERSION,
        "position": position,
        "order": copy.deepcopy(dict(settings)),
        "batch_size": batch_size,
        "world_size": world_size,
    }


def check_state(state: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """The position of a state whose order is that of these settings.

    Raises:
        ConfigError: it is no state, or of another order; says what differs.
    """
    version, position = state.get("version"), state.get("position")
    if version != VERSION or not isinstance(position, int) or not 0 <= position <= MOST:
        raise ConfigError(
            f"state: expected one of version {VERSION} with a position of 0 to {MOST:,}, got version "
            f"{str(version)[:40]}, position {str(position)[:40]}"
        )
    found = state.get("order", {})
    if found != settings:
        changed = "; ".join(changes(found, settings))
        raise ConfigError(f"state: is of another order, and going on would repeat or skip samples: {changed}")
    return position


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two mappings of plain values, each difference in words."""
    return [f"{name} was {old}, is {new}" for name, old, new in differences(before, now)]
