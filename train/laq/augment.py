"""Changes of pairs on the device: mirrored, and in other light. Both frames of a pair get the same.

The action between the frames stays an action, so there is nothing to relabel. What is drawn for a sample
depends on seed, step and the sample's place in the step alone, never on a random stream: ranks, accumulation
and resumed runs see the same pixels.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from oxcart.train.data.order import derive
from oxcart.train.laq.config import AugmentConfig

NUMBERS = 7
"""Random numbers of a sample: mirror, brightness, contrast, three channels, their order."""
_ORDERS = tuple(itertools.permutations(range(3)))


def draw_numbers(seed: int, step: int, count: int) -> Tensor:
    """float32 [B, 7] in [0, 1), for every sample of a step."""
    generator = torch.Generator().manual_seed(derive(seed, 21, step) >> 1)
    return torch.rand(count, NUMBERS, generator=generator)


def augment(frames: Tensor, numbers: Tensor, config: AugmentConfig) -> Tensor:
    """Changed frames.

    Args:
        frames: float [B, 2, 3, H, W] in [-1, 1].
        numbers: of `draw_numbers`, the rows of these samples.
        config: what may change, and how much.
    """
    numbers = numbers.to(frames.device)
    if config.flip:
        mirrored = (numbers[:, 0] < 0.5).view(-1, 1, 1, 1, 1)
        frames = torch.where(mirrored, frames.flip(-1), frames)
    if config.colour > 0:
        orders = torch.tensor(_ORDERS, device=frames.device)
        order = orders[(numbers[:, 6] * len(orders)).long()]
        frames = frames.gather(2, order.view(-1, 1, 3, 1, 1).expand_as(frames))
        change = (numbers[:, 1:6] * 2 - 1) * config.colour
        gain = (1 + change[:, 1:2]) * (1 + change[:, 2:5] / 2)
        frames = frames * gain.view(-1, 1, 3, 1, 1) + change[:, 0].view(-1, 1, 1, 1, 1)
        frames = frames.clamp(-1, 1)
    return frames
