"""Policies that are not trained, for rollouts: an expert, one at random, and chunks that encode their step.

Processes that play import them by name. `Spec` has the fields of the specification of a trained policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from oxcart.manifests.columns import Column
from oxcart.shards.errors import ConfigError

TARGET = 0.5
"""Where `Line1D` is done."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    cameras: tuple[tuple[str, tuple[int, int]], ...] = (("image_0", (8, 12)),)
    state: tuple[str, ...] = ("x",)
    action: tuple[Column, ...] = (Column(name="dx", kind="delta"),)
    control_rate: float = 10.0
    horizon: int = 1
    execute: int = 1


class Line1D(gymnasium.Env[Any, Any]):
    """A dot on a line: an action moves it, and it is done at TARGET. The state tells where it is."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012  as Gymnasium has it
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, pixels: bool = True, size: int = 8) -> None:
        self.pixels, self.size = pixels, size

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = (options or {}).get("kitchen", "")
        self.x = float(self.np_random.uniform(-0.5, 0.0))
        return self.observe(), self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float32
        assert action.shape == (1,)
        self.x += float(np.clip(action[0], -0.1, 0.1))
        done = abs(self.x - TARGET) < 0.06
        return self.observe(), float(done), done, False, self.info()

    def observe(self) -> dict[str, Any]:
        image = np.full((self.size, self.size + 4, 3), 128, np.uint8)
        image[:, round((self.x + 1) * self.size / 2) % image.shape[1]] = 255
        state = np.array([self.x], np.float32)
        return {"image_0": image, "state": state} if self.pixels else {"state": state}

    def info(self) -> dict[str, Any]:
        side = "right" if self.x < TARGET else "left"
        return {
            "is_success": abs(self.x - TARGET) < 0.06,
            "instruction": f"go {side}",
            "task": "go",
            "place": self.place,
        }


class Planted:
    """A policy by a rule of the state."""

    def __init__(self, rule: str = "right", spec: Spec | None = None) -> None:
        self.rule, self.spec = rule, spec or Spec()
        self.fingerprint = f"planted {rule}"

    def reset(self, count: int = 1) -> None:
        self.step, self.count = 0, count

    def act_batch(
        self,
        images: Mapping[str, Any],
        state: Any,
        instructions: Sequence[str],
        fresh: Any = None,
    ) -> Any:
        assert len(instructions) == self.count == len(state)
        assert {name: image.shape[0] for name, image in images.items()} == dict.fromkeys(images, self.count)
        self.step += 1
        if self.rule == "right":
            return np.full((self.count, 1), 0.1, np.float32)
        if self.rule == "steps":  # the action tells the step: 0.01, 0.02, ...
            return np.full((self.count, 1), 0.01 * self.step, np.float32)
        if self.rule == "nan":
            return np.full((self.count, 1), np.nan, np.float32)
        if self.rule == "starts":  # only from some starts, so that success differs
            return np.where(np.abs(state * 1000 % 2) < 1, 0.1, -0.1).astype(np.float32)
        if self.rule == "batch":  # depends on all rows, as sums of a matrix product may
            return (0.05 + 0.02 * np.sin(state.sum() + 7 * state)).astype(np.float32)
        raise AssertionError(self.rule)


if "oxcart-tests/Line-v0" not in gymnasium.registry:
    gymnasium.register("oxcart-tests/Line-v0", entry_point=Line1D, max_episode_steps=12)
LINE = "planted_policies:oxcart-tests/Line-v0"


KITCHEN_SPEC = Spec(
    cameras=(("image_0", (32, 32)), ("wrist", (16, 16))),
    state=("dx", "dy", "gripper"),
    action=(
        Column(name="dx", kind="delta"),
        Column(name="dy", kind="delta"),
        Column(name="gripper", kind="gripper_absolute"),
    ),
)


class InKitchens:
    """Does what its state says (`expert_adapter`), or something at random."""

    def __init__(self, rule: str = "state") -> None:
        self.rule, self.spec, self.fingerprint = rule, KITCHEN_SPEC, f"planted {rule}"

    def reset(self, count: int = 1) -> None:
        self.generator = np.random.default_rng(0)

    def act_batch(
        self,
        images: Mapping[str, Any],
        state: Any,
        instructions: Sequence[str],
        fresh: Any = None,
    ) -> Any:
        assert all(instructions)
        assert {name: image.shape[1:3] for name, image in images.items()} == dict(self.spec.cameras)
        if self.rule == "state":
            return state
        return self.generator.uniform(-0.1, 0.1, (len(state), 3)).astype(np.float32)


def load_planted(run: Path, *, device: str, execute: int | None, ensemble: float | None) -> InKitchens:
    """The policy in the directory of a run, which has nothing but the name of its rule."""
    if not (run / "rule").exists():
        raise ConfigError(f"RUN: {run} has no policy; train one with: oxcart train policy")
    return InKitchens((run / "rule").read_text())
