"""Augmentation of pairs on the device: mirrored, moved, recoloured, reversed; both frames alike.

A changed pair still shows an action, though another one. LAQ has no labels to correct; do not use this where
actions are targets. The numbers of a sample depend on seed, step and its place in the step alone, never on a
random stream, so that ranks, accumulation and resumed runs see the same pixels.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

from oxcart.train.data.order import derive
from oxcart.train.laq.config import AugmentConfig

NUMBERS = 10
"""Random numbers per sample: mirror, brightness, contrast, three channels, their order, reversal, down,
right."""
_ORDERS = tuple(itertools.permutations(range(3)))


def draw_numbers(seed: int, step: int, count: int) -> Tensor:
    """Random numbers of all samples of a step: float32 [B, NUMBERS] in [0, 1)."""
    generator = torch.Generator().manual_seed(derive(seed, 21, step) >> 1)
    return torch.rand(count, NUMBERS, generator=generator)


def augment(frames: Tensor, numbers: Tensor, config: AugmentConfig) -> Tensor:
    """Augmented frames.

    Args:
        frames: float [B, 2, 3, H, W] in [-1, 1].
        numbers: rows of `draw_numbers` for these samples, on the device.
        config: which changes are made, and how large they are.
    """
    if config.flip:
        mirrored = (numbers[:, 0] < 0.5).view(-1, 1, 1, 1, 1)
        frames = torch.where(mirrored, frames.flip(-1), frames)
    if config.reverse:
        backwards = (numbers[:, 7] < 0.5).view(-1, 1, 1, 1, 1)
        frames = torch.where(backwards, frames.flip(1), frames)
    if config.shift > 0:
        frames = shifted(frames, ((numbers[:, 8:10] * 2 - 1) * config.shift))
    if config.colour > 0:
        orders = _orders(frames.device)
        order = orders[(numbers[:, 6] * len(orders)).long()]
        frames = frames.gather(2, order.view(-1, 1, 3, 1, 1).expand_as(frames))
        frames = lit(frames, (numbers[:, 1:6] * 2 - 1) * config.colour)
    return frames


@functools.cache
def _orders(device: torch.device) -> Tensor:
    """The orders of three channels, int64 [6, 3], copied to a device once."""
    return torch.tensor(_ORDERS, device=device)


def lit(frames: Tensor, change: Tensor) -> Tensor:
    """Frames [B, N, 3, H, W] in other light: brightness, contrast and half of each channel's gain by [B,
    5]."""
    gain = (1 + change[:, 1:2]) * (1 + change[:, 2:5] / 2)
    frames = frames * gain.view(-1, 1, 3, 1, 1) + change[:, 0].view(-1, 1, 1, 1, 1)
    return frames.clamp(-1, 1)


def shifted(frames: Tensor, shares: Tensor) -> Tensor:
    """Frames moved down and right by shares [B, 2] of their sides; the edge is repeated."""
    height, width = frames.shape[-2:]
    down, right = ((shares[:, i] * side).round().long() for i, side in enumerate((height, width)))
    rows = (torch.arange(height, device=frames.device) - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) - right[:, None]).clamp(0, width - 1)
    frames = frames.gather(3, rows[:, None, None, :, None].expand_as(frames))
    return frames.gather(4, columns[:, None, None, None, :].expand_as(frames))
