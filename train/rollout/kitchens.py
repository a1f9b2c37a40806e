"""The adapter of the sample kitchens; `adapter` says what an adapter is.

Gymnasium imports `oxcart.sim` by the id, since this room may not: the world is decided outside of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ID = "oxcart.sim:oxcart/Kitchens-v0"
CONTROL_RATE = 10
ACTION = (("dx", "delta"), ("dy", "delta"), ("gripper", "gripper_absolute"))


def task(info: Mapping[str, Any]) -> str:
    """The kind of the task, such as `left`: there are too few episodes to count each colour."""
    return str(info["kind"])


def options(environment: str) -> Mapping[str, Any]:
    """Begin in the kitchen of that name."""
    return {"kitchen": environment}


def sized(cameras: Mapping[str, tuple[int, int]]) -> Mapping[str, Any]:
    """The size of the main camera; the wrist camera's is half as large."""
    sides = [cameras[name][0] * scale for name, scale in (("image_0", 1), ("wrist", 2)) if name in cameras]
    return {"size": sides[0]} if sides else {}
