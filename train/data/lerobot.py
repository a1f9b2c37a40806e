"""A batch under the names that LeRobot's policies read (lerobot 0.6), which `Batch.lerobot()` returns.

    observation.images.NAME               float32 [B, k, 3, H, W] from 0 to 1; [B, 3, H, W] for a single step
    observation.images.NAME_is_pad        bool [B, k]; only with an axis of steps
    observation.images.NAME_padding_mask  bool [B]: False where all is padding, as without such a camera
    observation.state                     float32 [B, k, S]; [B, S] for a single step
    observation.state_is_pad              bool [B, k]; only with an axis of steps
    action                                float32 [B, K, A]; [B, A] for a single step
    action_is_pad                         bool [B, K]; [B] for a single step
    task                                  B instructions

What was not read has no key. NAME is the camera as it was asked for. The frames of a camera that a dataset
lacks are black: SmolVLA masks them by `_padding_mask`, where True means that there is an image; ACT and
diffusion policy have no such mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oxcart.shards.errors import ConfigError

if TYPE_CHECKING:
    from oxcart.train.data.batch import Batch


def lerobot(batch: Batch) -> dict[str, Any]:
    """The batch as a dictionary, on the device of the batch: move the batch first, while frames are uint8.

    Raises:
        ConfigError: the actions are sums, for which LeRobot has no name.
    """
    if batch.action_mask is not None:
        raise ConfigError("lerobot: expected the actions of steps, got sums; use Window(action=range(k))")
    found: dict[str, Any] = {}
    for camera, (frames, is_pad) in _cameras(batch).items():
        key = f"observation.images.{camera}"
        found[key] = _floats(frames)
        if is_pad.ndim == 2:
            found[f"{key}_is_pad"] = is_pad
        found[f"{key}_padding_mask"] = ~(is_pad.all(dim=1) if is_pad.ndim == 2 else is_pad)
    if batch.state is not None and batch.state_is_pad is not None:
        found["observation.state"] = batch.state
        if batch.state_is_pad.ndim == 2:
            found["observation.state_is_pad"] = batch.state_is_pad
    if batch.action is not None:
        found |= {"action": batch.action, "action_is_pad": batch.action_is_pad}
    in_force = batch.instructions
    found["task"] = batch.instruction if in_force is None else [some[0] if some else "" for some in in_force]
    return found


def _cameras(batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Camera -> its frames, and which of them are padding."""
    if batch.frames is None or batch.frames_is_pad is None:
        return {}
    if isinstance(batch.frames, Tensor):
        (camera,) = batch.cameras
        return {camera: (batch.frames, batch.frames_is_pad)}
    return {camera: (frames, batch.frames_is_pad[camera]) for camera, frames in batch.frames.items()}


def _floats(frames: Tensor) -> Tensor:
    """Frames uint8 [..., H, W, 3] as float32 [..., 3, H, W] from 0 to 1."""
    return torch.div(frames.movedim(-1, -3).contiguous(), 255)
