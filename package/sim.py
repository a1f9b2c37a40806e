"""Simulated kitchens to act in: a Gymnasium environment, and an expert that solves it.

    import gymnasium
    import oxcart.sim

    env = gymnasium.make("oxcart/Kitchens-v0", kitchens=oxcart.sim.kitchen_names(20))
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(oxcart.sim.expert(env.unwrapped.world))

Needs the extra `sim`. docs/sim.md describes the environment.
"""

from __future__ import annotations

try:
    import gymnasium
except ImportError as error:
    raise ImportError("oxcart.sim needs Gymnasium; install oxcart[sim]") from error

from oxcart.compile.sample.expert import actions, demonstrate, expert
from oxcart.compile.sample.kitchen import kitchen_names
from oxcart.compile.sample.sim import FIRST_EPISODE, MAX_STEPS, KitchensEnv
from oxcart.compile.sample.world import LIMIT, RATE_HZ, World, move

__all__ = [
    "FIRST_EPISODE",
    "ID",
    "LIMIT",
    "MAX_STEPS",
    "RATE_HZ",
    "KitchensEnv",
    "World",
    "actions",
    "demonstrate",
    "expert",
    "kitchen_names",
    "move",
]

ID = "oxcart/Kitchens-v0"
"""Id by which `gymnasium.make` knows the environment."""

if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point="oxcart.sim:KitchensEnv", max_episode_steps=MAX_STEPS)
