"""gym-pusht: a dot pushes a T onto its outline. An adapter of `oxcart rollout`, as docs/policy.md describes.

    pip install gym-pusht
    oxcart rollout RUN --env gym_pusht/PushT-v0 --adapter examples/pusht.py --episodes 50

The policy sees one camera, `top`, and the dot's place in pixels, as LeRobot's dataset lerobot/pusht has them,
and says where the dot is to go. The T counts as pushed when 95% of its outline is covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

ID = "gym_pusht:gym_pusht/PushT-v0"  # the module before the colon registers it
CONTROL_RATE = 10
ACTION = (("x", "absolute"), ("y", "absolute"))
CAMERA = "top"


def make(env: str, **options: Any) -> Any:
    """The environment with pixels and the dot's place."""
    return gymnasium.make(env, obs_type="pixels_agent_pos", disable_env_checker=True, **options)


def sized(cameras: Mapping[str, tuple[int, int]]) -> Mapping[str, Any]:
    """The size of the camera."""
    height, width = cameras.get(CAMERA, (96, 96))
    return {"observation_height": height, "observation_width": width}


def observe(observation: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any, str]:
    """Image by camera, place of the dot, instruction."""
    return {CAMERA: observation["pixels"]}, observation["agent_pos"].astype(np.float32), "push the T"


def task(info: Mapping[str, Any]) -> str:
    """There is but one."""
    return "push the T"
