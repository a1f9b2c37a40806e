"""The latent-action model: an encoder of two frames, a quantizer, and a decoder of the first frame and codes.

    z = encoder(x_t, x_t+k)            [B, n, d]
    codes = quantize(z)                [B, n]
    prediction = decoder(x_t, codes)   [B, 3, H, W]

Nothing else of frame t+k reaches the decoder. This module holds what all kinds of networks have in common;
`space_time` has our own, `lapa` has LAPA's, and `build` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from oxcart.train.device import autocast
from oxcart.train.finite import filled, lost
from oxcart.train.laq.quantize import Quantizer

NONE = -1
"""Code for latents that are not finite, and for steps without a pair."""


class LaqOutput(NamedTuple):
    """Output of the model for a batch of pairs."""

    prediction: Tensor
    """float32 [B, 3, H, W] in about [-1, 1]: the predicted frame t + k."""
    codes: Tensor
    """int64 [B, n]: codes of each pair."""
    loss: Tensor
    """float32 []: loss of the quantizer."""
    flow: Tensor | None
    """float32 [B, 2, h, w]: flow from t to t + k, one vector per `flow.cell`, as a share of the width; None
    without a flow decoder."""


class LatentActionModel(nn.Module, ABC):
    """A quantizer, and a network that gives it latents and draws from its vectors."""

    layered: bool = False
    """Whether codes alone choose how each part moves, so that they move every frame alike by design."""
    bf16: bool = False
    """Whether `encode` and `decode` compute in bf16; `forward` does as its caller says."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    @abstractmethod
    def latents(self, frames: Tensor) -> Tensor:
        """Latents [B, n, d], before they are quantized, of frames [B, 2, 3, H, W] in [-1, 1]."""

    @abstractmethod
    def draw(self, first: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prediction and flow, as in `LaqOutput`, from frame t [B, 3, H, W] and code vectors [B, n, d]."""

    def forward(self, frames: Tensor, noise: Tensor | None = None, hardness: float = 1.0) -> LaqOutput:
        """Encode, quantize and decode pairs.

        Args:
            frames: float [B, 2, 3, H, W] in [-1, 1].
            noise: float [B, n, d] for the quantizer in training; None decodes the codes themselves.
            hardness: share by which noise has turned towards the code.
        """
        found = self.quantizer(self.latents(frames), noise, hardness)
        prediction, flow = self.draw(frames[:, 0], found.vectors)
        return LaqOutput(prediction, found.codes, found.loss, flow)

    def encode(self, frames: Tensor) -> Tensor:
        """Codes [B, n] of frames [B, 2, 3, H, W]; `NONE` where the latents are not finite."""
        with autocast(self.bf16, frames.device):
            z = self.latents(frames)
            codes: Tensor = self.quantizer(z).codes
        return filled(codes, lost(z), NONE)

    def decode(self, first: Tensor, codes: Tensor) -> Tensor:
        """Frame t + k from frame t [B, 3, H, W] and codes [B, n]; NaN where it is not finite."""
        with autocast(self.bf16, first.device):
            prediction = self.draw(first, self.quantizer.lookup(codes))[0].float()
        return filled(prediction, lost(prediction), torch.nan)


def to_float(frames: Tensor) -> Tensor:
    """Frames uint8 [B, N, H, W, 3] as float32 [B, N, 3, H, W] in [-1, 1], on the same device."""
    return (
        frames.permute(0, 1, 4, 2, 3)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .div(127.5)
        .sub(1)
    )


def to_uint8(frames: Tensor) -> Tensor:
    """Frames [B, N, 3, H, W] in [-1, 1] as uint8 [B, N, H, W, 3], the reverse of `to_float`."""
    return frames.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 1, 3, 4, 2)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample [B], in units of [0, 1] pixels."""
    return functional.mse_loss(prediction.float(), target.float(), reduction="none").mean((1, 2, 3)) / 4


def run_block(block: nn.Module, recompute: bool | None, x: Tensor, *others: object) -> Tensor:
    """The output of a block. In training its activations are recomputed in the backward pass if `recompute`;
    None means on a CPU."""
    recompute = x.device.type == "cpu" if recompute is None else recompute
    if recompute and block.training and torch.is_grad_enabled():
        return checkpoint(block, x, *others, use_reentrant=False)  # type: ignore[no-any-return]
    result: Tensor = block(x, *others)
    return result
