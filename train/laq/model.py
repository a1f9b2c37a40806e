"""The latent-action model: an encoder of two frames, and a decoder of the first frame and the codes.

    z = project(pool(E(x_t, x_t+k)[1] - E(x_t, x_t+k)[0]))     [B, n, d]
    codes = quantize(z)                                         [B, n]
    prediction = D(x_t, codes)                                  [B, 3, H, W]

The encoder is a space-time transformer: attention within each frame, then from each patch to itself at the
earlier time (causal, so the first frame's features do not depend on the second). n learned queries pool the
difference. The decoder attends within frame t and to the codes; nothing else of frame t+k reaches it.

How it came to this form (LAPA, arXiv:2410.11758) is in docs/laq.md. What is ours is the layered output, which
takes apart what moves and how: the decoder cuts frame t into parts without knowing the codes, and each part
is moved by an affine map that is linear in the code vectors, without knowing the frame. So a code means one
motion in every scene, and the codes of a latent action add up. It learns from minutes of episodes what a
decoder that mixes codes and frames learns by heart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from oxcart.train.finite import filled, lost
from oxcart.train.laq.blocks import (
    Attention,
    Block,
    ConvHead,
    ConvStem,
    LinearHead,
    LinearStem,
    move,
)
from oxcart.train.laq.config import ModelConfig, QuantizerConfig
from oxcart.train.laq.quantize import build_quantizer, width_of

NONE = -1
"""Code for latents that are not finite, and for steps without a pair."""
SHUT = -2.0
"""Initial masks of layers, before the sigmoid: most of frame t stands still."""
REACH = (0.2, 0.2, 0.3)
"""Unit of a layer's motion: turning, scaling and shearing in parts, shifts in half sides of the frame."""
CODE_RATE = 10.0
"""Learning rate of codebooks, as a multiple of `train.lr`: they have to keep up with the encoder."""
FLOW_CELL = 4
"""Side, in pixels, of a cell for which the flow decoder predicts one vector."""


class LaqOutput(NamedTuple):
    """Output of the model for a batch of pairs."""

    prediction: Tensor
    """float32 [B, 3, H, W] in about [-1, 1]: the predicted frame t + k."""
    codes: Tensor
    """int64 [B, n]: codes of each pair."""
    loss: Tensor
    """float32 []: loss of the quantizer."""
    flow: Tensor | None
    """float32 [B, 2, H/4, W/4]: flow in pixels from t to t + k; None without a flow decoder."""


class LatentActionModel(nn.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, model: ModelConfig, quantizer: QuantizerConfig, flow: bool = False) -> None:
        super().__init__()
        self.layered = model.output == "layered"
        """Whether codes alone choose how each part moves, so that they move every frame alike by design."""
        self.quantizer = build_quantizer(quantizer)
        self.encoder = Encoder(model, self.quantizer.tokens, self.quantizer.dim)
        self.decoder = Decoder(model, self.quantizer.tokens, self.quantizer.dim, flow)

    def forward(self, frames: Tensor, noise: Tensor | None = None, hardness: float = 1.0) -> LaqOutput:
        """Encode, quantize and decode pairs.

        Args:
            frames: float [B, 2, 3, H, W] in [-1, 1].
            noise: float [B, n, d] for the quantizer in training; None decodes the codes themselves.
            hardness: share by which noise has turned towards the code.
        """
        found = self.quantizer(self.encoder(frames), noise, hardness)
        prediction, flow = self.decoder(frames[:, 0], found.vectors)
        return LaqOutput(prediction, found.codes, found.loss, flow)

    def latents(self, frames: Tensor) -> Tensor:
        """Latents [B, n, d], before they are quantized, of frames [B, 2, 3, H, W]."""
        z: Tensor = self.encoder(frames)
        return z

    def encode(self, frames: Tensor) -> Tensor:
        """Codes [B, n] of frames [B, 2, 3, H, W]; `NONE` where the latents are not finite."""
        z = self.encoder(frames)
        codes: Tensor = self.quantizer(z).codes
        return filled(codes, lost(z), NONE)

    def decode(self, first: Tensor, codes: Tensor) -> Tensor:
        """Frame t + k from frame t [B, 3, H, W] and codes [B, n]; NaN where it is not finite."""
        prediction: Tensor = self.decoder(first, self.quantizer.lookup(codes))[0]
        return filled(prediction, lost(prediction), torch.nan)


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
        recompute = self._recompute and self.training
        for block in self.spatial:
            x = _run(block, recompute, x)
        x = x.view(batch, 2, number, width).transpose(1, 2).reshape(batch * number, 2, width)
        for block in self.temporal:
            x = _run(block, recompute, x, None, True)
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

    def __init__(self, model: ModelConfig, tokens: int, dim: int, flow: bool) -> None:
        super().__init__()
        width, side = model.width, model.image_size // model.patch
        self._output, self._recompute = model.output, model.checkpointing
        self._layers = model.layers if model.output == "layered" else 0
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
        cell = min(FLOW_CELL, model.patch)
        self.flow = LinearHead(width, model.patch // cell, 2) if flow else None

    def forward(self, first: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Prediction and flow from frame t [B, 3, H, W] and code vectors [B, n, d]."""
        tokens, details = self.stem(first)
        x = tokens + self.position
        context = None if self._layers else self.context(vectors)
        for block in self.blocks:
            x = _run(block, self._recompute and self.training, x, context)
        maps = self.head(x, first, details).float()
        flow = None if self.flow is None else self.flow(x, first, ()).float()
        first = first.float()
        if self._layers:
            return self._composed(first, maps, self.motions(vectors)), flow
        return (first + maps if self._output == "residual" else maps), flow

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


def shapes_of(model: ModelConfig, quantizer: QuantizerConfig, flow: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of encoder and decoder; allocates none of them."""
    tokens, dim = quantizer.tokens, width_of(quantizer)
    with torch.device("meta"):
        parts = {"encoder": Encoder(model, tokens, dim), "decoder": Decoder(model, tokens, dim, flow)}
    return {
        f"{part}.{name}": tuple(weight.shape)
        for part, module in parts.items()
        for name, weight in module.state_dict().items()
    }


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


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """AdamW's parameter groups: weight decay only on matrices, not on biases, norms, embeddings, queries and
    codebooks."""
    kept: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    codes: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        matrix = parameter.ndim >= 2 and leaf == "weight"
        (codes if leaf == "codebook" else decayed if matrix else kept).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    if codes:
        groups.append({"params": codes, "weight_decay": 0.0, "rate": CODE_RATE})
    return groups


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample [B], in units of [0, 1] pixels."""
    return functional.mse_loss(prediction.float(), target.float(), reduction="none").mean((1, 2, 3)) / 4


def _run(block: nn.Module, recompute: bool, *inputs: object) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
    result: Tensor = block(*inputs)
    return result
