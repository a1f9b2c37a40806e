"""Adapter of the sample kitchens whose state is what the expert, which sees the world, would do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oxcart import sim
from oxcart.train.rollout import adapter
from oxcart.train.rollout.kitchens import ACTION, CONTROL_RATE, ID, options, sized, task

__all__ = ["ACTION", "CONTROL_RATE", "ID", "make", "observe", "options", "sized", "task"]

_worlds: dict[int, Any] = {}


def make(env: str, **options: Any) -> Any:
    import gymnasium

    class Told(gymnasium.Wrapper[Any, Any, Any, Any]):
        def reset(self, **given: Any) -> Any:
            observation, info = self.env.reset(**given)
            return observation, {**info, "world": self.unwrapped.world}

        def step(self, action: Any) -> Any:
            *rest, info = self.env.step(action)
            return *rest, {**info, "world": self.unwrapped.world}

    return Told(adapter.make(env, **options))


def observe(observation: Any, info: Mapping[str, Any]) -> Any:
    images, _, instruction = adapter.observe(observation, info)
    return images, np.asarray(sim.expert(info["world"]), np.float32), instruction
