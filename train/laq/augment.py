"""Changes of pairs on the device: mirrored, moved, in other light, backwards. Both frames get the same.

What lies between the frames stays an action, though another one, so there is nothing to relabel: nothing here
may be used where actions are targets. What is drawn for a sample
depends on seed, step and the sample's place in the step alone, never on a random stream: ranks, accumulation
and resumed runs see the same pixels.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from oxcart.train.data.order import derive
from oxcart.train.laq.config import AugmentConfig

NUMBERS = 10
"""Random numbers of a sample: mirror, brightness, contrast, three channels, their order, backwards, down and
right."""
_ORDERS = tuple(itertools.permutations(range(3)))


def draw_numbers(seed: int, step: int, count: int) -> Tensor:
    """float32 [B, NUMBERS] in [0, 1), for every sample of a step."""
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
    if config.reverse:
        backwards = (numbers[:, 7] < 0.5).view(-1, 1, 1, 1, 1)
        frames = torch.where(backwards, frames.flip(1), frames)
    if config.shift > 0:
        frames = shifted(frames, ((numbers[:, 8:10] * 2 - 1) * config.shift))
    if config.colour > 0:
        orders = torch.tensor(_ORDERS, device=frames.device)
        order = orders[(numbers[:, 6] * len(orders)).long()]
        frames = frames.gather(2, order.view(-1, 1, 3, 1, 1).expand_as(frames))
        frames = lit(frames, (numbers[:, 1:6] * 2 - 1) * config.colour)
    return frames


def lit(frames: Tensor, change: Tensor) -> Tensor:
    """Frames [B, N, 3, H, W] with brightness, contrast and half of each channel's gain changed by [B, 5]."""
    gain = (1 + change[:, 1:2]) * (1 + change[:, 2:5] / 2)
    frames = frames * gain.view(-1, 1, 3, 1, 1) + change[:, 0].view(-1, 1, 1, 1, 1)
    return frames.clamp(-1, 1)


def shifted(frames: Tensor, shares: Tensor) -> Tensor:
    """Frames moved down and right by shares [B, 2] of their sides; what comes in repeats the edge."""
    height, width = frames.shape[-2:]
    down, right = (shares * shares.new_tensor([height, width])).round().long().unbind(1)
    rows = (torch.arange(height, device=frames.device) - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) - right[:, None]).clamp(0, width - 1)
    frames = frames.gather(3, rows[:, None, None, :, None].expand_as(frames))
    return frames.gather(4, columns[:, None, None, None, :].expand_as(frames))
