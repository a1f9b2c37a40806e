"""Parts of the latent-action model: attention blocks, and stems and heads between pixels and tokens.

Frames are float [B, 3, H, W] in [-1, 1]. Tokens are [B, N, D], one per patch, row by row. Attention is
PyTorch's `scaled_dot_product_attention` with normalised queries and keys; in bf16 their products would
otherwise leave the softmax's useful range. The trade-off: convolutional stems and heads learn in minutes what
patches take days for, but are slower than patches of the same width on a GPU. Presets choose.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oxcart.train.finite import filled, lost

FINE = 8
"""Channels of a convolutional head at the size of the frames."""
FAR = 1e4
"""Limit of a motion, in half sides of the frame. Long before it a frame shows nothing but its edge; far
beyond it, coordinates would overflow the integers of native code."""


class Attention(nn.Module):
    """Multi-head attention of x [..., N, D] to itself or to a context [..., M, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(width // heads))
        self.key_scale = nn.Parameter(torch.ones(width // heads))

    def forward(self, x: Tensor, context: Tensor | None = None, causal: bool = False) -> Tensor:
        batch, number, width = x.shape
        context = x if context is None else context
        q = self.query(x).view(batch, number, self.heads, -1)
        kv = self.key_value(context).view(batch, context.shape[1], 2, self.heads, -1)
        k, v = kv.unbind(2)
        size = (q.shape[-1],)
        q, k = functional.rms_norm(q, size) * self.query_scale, functional.rms_norm(k, size) * self.key_scale
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2).to(v.dtype), k.transpose(1, 2).to(v.dtype), v.transpose(1, 2), is_causal=causal
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, number, width))
        return out


class Block(nn.Module):
    """Attention, attention to a context if there is one, and a hidden layer, each with a residual
    connection."""

    def __init__(self, width: int, heads: int, mlp: float, *, cross: bool = False) -> None:
        super().__init__()
        hidden = int(width * mlp)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross = Attention(width, heads) if cross else None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, context: Tensor | None = None, causal: bool = False) -> Tensor:
        x = x + self.attention(self.norm(x), causal=causal)
        if self.cross is not None:
            assert self.cross_norm is not None
            x = x + self.cross(self.cross_norm(x), context)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class LinearStem(nn.Module):
    """One matrix makes a token of each patch."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens [B, N, D], and no details."""
        return self.patches(frames).flatten(2).transpose(1, 2), []


def stage_widths(patch: int, width: int) -> list[int]:
    """Channels after each halving, such as 16, 24, 96 for patch 8 and width 96.

    A stage at twice the side has a quarter of the channels, so every stage costs about the same.
    """
    halvings = patch.bit_length() - 1
    return [max(16, width >> 2 * (halvings - 1 - i)) for i in range(halvings - 1)] + [width]


class ConvStem(nn.Module):
    """Convolutions, each of which halves the side, make tokens of patches and their surroundings."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        widths = stage_widths(patch, width)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(_groups(after), after), nn.GELU())
            for before, after in zip([channels, *widths], widths, strict=False)
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens [B, N, D], and the maps of the stages before, large ones first."""
        x, details = frames, []
        for stage in self.stages:
            x = stage(x)
            details.append(x)
        return x.flatten(2).transpose(1, 2), details[:-1]


class LinearHead(nn.Module):
    """One matrix makes a patch of each token."""

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, patch * patch * channels)
        self._patch = patch
        nn.init.normal_(self.pixels.weight, std=0.02)
        nn.init.zeros_(self.pixels.bias)

    def forward(self, tokens: Tensor, frames: Tensor, details: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, H, W]."""
        batch, number, _ = tokens.shape
        side = int(number**0.5)
        x = self.pixels(self.norm(tokens)).transpose(1, 2).reshape(batch, -1, side, side)
        return functional.pixel_shuffle(x, self._patch)


class ConvHead(nn.Module):
    """Convolutions, each of which doubles the side and sees the stem's map of that size, make maps of
    tokens."""

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        widths = stage_widths(patch, width)[::-1]
        self.norm = nn.LayerNorm(width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before + after, after, 3, padding=1), nn.GroupNorm(_groups(after), after), nn.GELU()
            )
            for before, after in itertools.pairwise(widths)
        )
        self.grow = nn.Conv2d(widths[-1], 4 * FINE, 3, padding=1)
        self.last = nn.Conv2d(FINE + 3, channels, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.02)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, tokens: Tensor, frames: Tensor, details: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, H, W]."""
        batch, number, width = tokens.shape
        side = int(number**0.5)
        x = self.norm(tokens).transpose(1, 2).reshape(batch, width, side, side)
        for stage, detail in zip(self.stages, reversed(details), strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = stage(torch.cat([x, detail.to(x.dtype)], 1))
        x = functional.gelu(functional.pixel_shuffle(self.grow(x), 2))
        out: Tensor = self.last(torch.cat([x, frames.to(x.dtype)], 1))
        return out


def move(frames: Tensor, motion: Tensor) -> Tensor:
    """Frames [B, C, H, W], each moved by an affine map.

    Args:
        frames: the frames; their edges continue beyond them.
        motion: [B, 2, 3], added to the identity; x and y in half widths and half heights. The result at p is
            the frame at p + motion [p, 1]; it is NaN where the motion is not finite.
    """
    with torch.autocast(frames.device.type, enabled=False):  # a product in bf16 is off by half a pixel
        still = torch.eye(2, 3, device=motion.device)
        nowhere = lost(motion)
        motion = filled(motion.float(), nowhere, 0.0).clamp(-FAR, FAR)
        grid = functional.affine_grid(motion + still, list(frames.shape), align_corners=False)
        moved = functional.grid_sample(
            frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        return filled(moved, nowhere, torch.nan)


def _groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
