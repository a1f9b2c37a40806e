"""Recordings of tiny frames that a test makes, and what each call of `add_episode` was given.

calls = [episode(i) for i in range(4)]
record(tmp_path / "mine", calls)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import oxcart
from oxcart.manifests.columns import Column

CAMERAS = {"image_0": "primary", "wrist": "wrist"}
ACTION = [Column(name="dx", kind="delta", unit="m", frame="base"), Column(name="gripper")]
STATE = ["x", "y", "z"]

Call = dict[str, Any]
"""Arguments of `add_episode`."""


def episode(number: int, steps: int = 5, **changes: Any) -> Call:
    """An episode whose numbers follow from its own; two per kitchen."""
    rng = np.random.default_rng(number)
    frames = {
        "image_0": rng.integers(0, 256, (steps, 20, 24, 3), np.uint8),
        "wrist": rng.integers(0, 256, (steps, 16, 16, 3), np.uint8),
    }
    return {
        "frames": frames,
        "action": rng.normal(size=(steps, 2)).astype(np.float32),
        "state": rng.normal(size=(steps, 3)).astype(np.float32),
        "environment": f"kitchen {number // 2}",
        "session": f"day {number}",
        "instruction": [(0, f"take {number}"), (2, "put it down")],
        "success": (True, False, None)[number % 3],
        **changes,
    }


def created(folder: Path, **changes: Any) -> oxcart.Recorder:
    """The folder, created with the arguments that fit `episode`."""
    arguments: dict[str, Any] = {"cameras": CAMERAS, "action": ACTION, "state": STATE, "control_rate": 5}
    return oxcart.create(folder, **{**arguments, **changes})


def record(folder: Path, calls: Iterable[Call], **changes: Any) -> list[str]:
    """Record episodes, and return their keys."""
    with created(folder, **changes) as out:
        return [out.add_episode(**call) for call in calls]
