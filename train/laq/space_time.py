"""Our own network: kinds `plain`, `residual` and `layered`.

    z = project(pool(E(x_t, x_t+k)[1] - E(x_t, x_t+k)[0]))     [B, n, d]

The encoder is a space-time transformer: attention within each frame, then from each patch to itself at the
earlier time (causal, so the first frame's features do not depend on the second). n learned queries pool the
difference. The decoder attends within frame t and to the codes.

How it came to this form is in docs/laq.md. The layered output takes apart what moves and how: the decoder
cuts frame t into parts without knowing the codes, and each part is moved by an affine map that is linear in
the code vectors, without knowing the frame. So a code means one motion in every scene, and the codes of a
latent action add up. It learns from minutes of episodes what a decoder that mixes codes and frames learns by
heart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oxcart.train.laq.blocks import (
    Attention,
    Block,
    ConvHead,
    ConvStem,
    LinearHead,
    LinearStem,
    move,
)
from oxcart.train.laq.config import FlowConfig, ModelConfig
from oxcart.train.laq.model import LatentActionModel, run_block
from oxcart.train.laq.quantize import Quantizer

SHUT = -2.0
"""Initial masks of layers, before the sigmoid: most of frame t stands still."""
REACH = (0.2, 0.2, 0.3)
"""Unit of a layer's motion: turning, scaling and shearing in parts, shifts in half sides of the frame."""


class SpaceTime(LatentActionModel):
    """Encoder, quantizer and decoder of kind `plain`, `residual` or `layered`."""

    def __init__(self, model: ModelConfig, quantizer: Quantizer, flow: FlowConfig) -> None:
        super().__init__(quantizer)
        self.layered = model.kind == "layered"
        self.encoder = Encoder(model, quantizer.tokens, quantizer.dim)
        self.decoder = Decoder(model, quantizer.tokens, quantizer.dim, flow)

    def latents(self, frames: Tensor) -> Tensor:
        z: Tensor = self.encoder(frames)
        return z

    def draw(self, first: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        prediction, flow = self.decoder(first, vectors)
        return prediction, flow


class Encoder(nn.Module):
    """Two frames to n latent tokens."""

    def __init__(self, model: ModelConfig, tokens: int, dim: int) -> None:
        super().__init__()
        width, patches = model.width, (model.image_size // model.patch) ** 2
        self._difference, self._recompute = model.difference, model.checkpointing
        stem = ConvStem if model.stem == "conv" else LinearStem
        self.stem = stem(6 if model.difference else 3, model.patch, width)
        self.position = nn.Parameter(torch.randn(patches, width) * 0.02)
        self.time = nn.Parameter(torch.randn(2, 1, width) * 0.02)
        self.spatial = nn.ModuleList(Block(width, model.heads, model.mlp) for _ in range(model.spatial_depth))
        self.temporal = nn.ModuleList(
            Block(width, model.heads, model.mlp) for _ in range(model.temporal_depth)
        )
        self.norm = nn.LayerNorm(width, bias=False)  # which would cancel in the difference
        self.queries = nn.Parameter(torch.randn(tokens, width) * 0.5)
        self.pool = Attention(width, model.heads)
        self.pool_norm = nn.LayerNorm(width)
        hidden = int(width * model.mlp)
        self.pool_mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.project = nn.Linear(width, dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Latents [B, n, d] of frames [B, 2, 3, H, W]."""
        batch = len(frames)
        if self._difference:
            change = frames - frames[:, :1]
            frames = torch.cat([frames, change], 2)
        tokens, _ = self.stem(frames.flatten(0, 1))
        number, width = tokens.shape[1:]
        x = tokens.view(batch, 2, number, width) + self.position + self.time
        x = x.reshape(batch * 2, number, width)
        for block in self.spatial:
            x = run_block(block, self._recompute, x)
        x = x.view(batch, 2, number, width).transpose(1, 2).reshape(batch * number, 2, width)
        for block in self.temporal:
            x = run_block(block, self._recompute, x, None, True)
        x = self.norm(x).view(batch, number, 2, width)
        change = x[:, :, 1] - x[:, :, 0]
        # The sum keeps how much changed, which a norm of the pooled change alone would take away.
        pooled = self.queries + self.pool(self.queries.expand(batch, -1, -1), change + self.position)
        pooled = pooled + self.pool_mlp(self.pool_norm(pooled))
        latents: Tensor = self.project(pooled)
        return latents


class Decoder(nn.Module):
    """Frame t and code vectors to frame t + k."""

    unit: Tensor

    def __init__(self, model: ModelConfig, tokens: int, dim: int, flow: FlowConfig) -> None:
        super().__init__()
        width, side = model.width, model.image_size // model.patch
        self._kind, self._recompute = model.kind, model.checkpointing
        self._layers = model.layers if model.kind == "layered" else 0
        self.stem = (ConvStem if model.stem == "conv" else LinearStem)(3, model.patch, width)
        self.position = nn.Parameter(torch.randn(side * side, width) * 0.02)
        if self._layers:
            # One matrix over all tokens is a sum of one of each: no code touches another's part.
            self.motion = nn.Linear(tokens * dim, self._layers * 6)
            nn.init.normal_(self.motion.weight, std=0.05)
            nn.init.zeros_(self.motion.bias)
            self.register_buffer("unit", torch.tensor(REACH), persistent=False)
        else:
            self.code = nn.Linear(dim, width)
            self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, model.heads, model.mlp, cross=not self._layers) for _ in range(model.decoder_depth)
        )
        head = ConvHead if model.head == "conv" else LinearHead
        self.head = head(width, model.patch, self._layers + 3)
        cell = min(flow.cell, model.patch)
        self.flow = LinearHead(width, model.patch // cell, 2) if flow.teacher != "none" else None

    def forward(self, first: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prediction and flow from frame t [B, 3, H, W] and code vectors [B, n, d]."""
        tokens, details = self.stem(first)
        x = tokens + self.position
        context = None if self._layers else self.context(vectors)
        for block in self.blocks:
            x = run_block(block, self._recompute, x, context)
        maps = self.head(x, first, details).float()
        flow = None if self.flow is None else self.flow(x, first, ()).float()
        first = first.float()
        if self._layers:
            return self._composed(first, maps, self.motions(vectors)), flow
        return (first + maps if self._kind == "residual" else maps), flow

    def context(self, vectors: Tensor) -> Tensor:
        """Context [B, n, D] that the blocks attend to; each row comes from one code alone."""
        context: Tensor = self.code(vectors) + self.place
        return context

    def motions(self, vectors: Tensor) -> Tensor:
        """Motion [B, L, 2, 3] of each layer, for `move`; linear in the code vectors [B, n, d]."""
        with torch.autocast(vectors.device.type, enabled=False):  # eight bits would not do for places
            motion: Tensor = self.motion(vectors.float().flatten(1))
        return motion.view(len(motion), self._layers, 2, 3) * self.unit

    def _composed(self, first: Tensor, maps: Tensor, motions: Tensor) -> Tensor:
        """Moved layers of frame t over the background they uncover; each layer covers those before it."""
        masks = torch.sigmoid(maps[:, : self._layers] + SHUT)
        made = first + masks.amax(1, keepdim=True) * maps[:, self._layers :]
        for layer in range(self._layers):
            cut = move(torch.cat([first, masks[:, layer : layer + 1]], 1), motions[:, layer])
            made = made + cut[:, 3:] * (cut[:, :3] - made)
        return made
