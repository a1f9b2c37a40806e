"""LAPA's own network, to the letter (Ye et al., arXiv:2410.11758; `laq/laq_model` of its code).

    x = patches(frames in [0, 1])                                     [B, 2, h, w, D]
    x = temporal(spatial(x))                                          blocks of position, attention, GEGLU
    z = pool(project(x[1])) - pool(project(x[0]))                     [B, n, d]
    prediction = pixels(decoder(patches(x_t).detach(), expand(codes)))

Parts have the names of LAPA's, so that a published checkpoint fits name by name (`published`). Only parts
that its computation never uses are left out: LayerNorm's constant `beta`, and in self-attention the norm of a
context and the null keys. Some properties look like slips and are kept, since they change the numbers:

- Keys and values of self-attention come from the tokens before their norm, queries from after it.
- In the temporal blocks, the position generator reads memory of order (b h w) t as if it were (b, t, h, w).
- The quantized [B, n, d] are reshaped to [B, d, n] and transposed, which mixes the codes of all n tokens.

The same numbers are computed with less work. A frame has at most one earlier frame, so a depthwise
convolution over time and space is two over space. The position bias is computed once for each distinct
displacement, of which 8 x 8 patches have 225, and not for all 4,096 pairs. docs/laq.md lists how training
differs from LAPA's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from oxcart.train.laq.blocks import LinearHead
from oxcart.train.laq.config import POOLS, FlowConfig, ModelConfig
from oxcart.train.laq.model import LatentActionModel, run_block
from oxcart.train.laq.quantize import Quantizer

SCALE = 8.0
"""Factor of the products of normalised queries and keys."""
NULLS = 2
"""Learned keys and values of cross-attention that stand for no code."""
PLACE, SELF, CROSS, HIDDEN = "0", "1", "2", "3"
"""Names of the parts of a block."""

Shape = tuple[int, int, int, int]
"""Batch, time, height and width of tokens."""


class Lapa(LatentActionModel):
    """LAPA's encoder and decoder around a quantizer. Frames are in [-1, 1] outside and in [0, 1] inside."""

    def __init__(self, model: ModelConfig, quantizer: Quantizer, flow: FlowConfig) -> None:
        super().__init__(quantizer)
        width, heads, patch = model.width, model.heads, model.patch
        values, self._side = 3 * patch**2, model.image_size // patch
        self.spatial_rel_pos_bias = PositionBias(width, heads, self._side)
        self.to_patch_emb_first_frame = nn.Sequential(
            Patches(patch), nn.LayerNorm(values), nn.Linear(values, width), nn.LayerNorm(width)
        )
        self.enc_spatial_transformer = Transformer(model, model.spatial_depth)
        self.enc_temporal_transformer = Transformer(model, model.temporal_depth)
        self.vq = Pooling(width, quantizer.tokens, quantizer.dim)
        self.dec_spatial_transformer = Transformer(model, model.decoder_depth, cross=True)
        self.to_pixels_first_frame = nn.Sequential(nn.Linear(width, values))
        cell = min(flow.cell, patch)
        self.to_flow = LinearHead(width, patch // cell, 2) if flow.teacher != "none" else None

    def latents(self, frames: Tensor) -> Tensor:
        batch, side = len(frames), self._side
        x = self._embedded(frames.flatten(0, 1))
        shape = batch, 2, side, side
        x = self.enc_spatial_transformer(x, shape, self.spatial_rel_pos_bias(), None)
        x = x.unflatten(0, (batch, 2)).transpose(1, 2).flatten(0, 1)
        x = self.enc_temporal_transformer(x, shape, None, None)
        x = x.unflatten(0, (batch, side**2)).transpose(1, 2).flatten(0, 1)
        z: Tensor = self.vq(x, side).unflatten(0, (batch, 2))
        return z[:, 1] - z[:, 0]

    def draw(self, first: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, side = len(first), self._side
        with torch.no_grad():
            x = self._embedded(first)
        context = self.vq.context(vectors)
        shape = batch, 1, side, side
        x = self.dec_spatial_transformer(x, shape, self.spatial_rel_pos_bias(), context)
        pixels = self.to_pixels_first_frame(x).float()
        pixels = pixels.transpose(1, 2).unflatten(2, (side, side))
        flow = None if self.to_flow is None else self.to_flow(x, first, ()).float()
        patch = first.shape[-1] // side
        return functional.pixel_shuffle(pixels, patch) * 2 - 1, flow

    def _embedded(self, frames: Tensor) -> Tensor:
        """Tokens [N, h w, D] of frames [N, 3, H, W] in [-1, 1]."""
        tokens: Tensor = self.to_patch_emb_first_frame((frames + 1) / 2)
        return tokens


class Patches(nn.Module):
    """Values [N, h w, 3 p p] of the patches of frames [N, 3, H, W]."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self._patch = patch

    def forward(self, frames: Tensor) -> Tensor:
        return functional.pixel_unshuffle(frames, self._patch).flatten(2).transpose(1, 2)


class Norm(nn.Module):
    """LayerNorm with a gain and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.gamma.shape, self.gamma)


class Place(nn.Module):
    """Position generator: a depthwise 3 x 3 x 3 convolution over time, height and width, of which time sees
    only the past."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dsconv = nn.Conv3d(width, width, 3, groups=width)

    def forward(self, x: Tensor, shape: Shape) -> Tensor:
        """Convolved tokens; x of any shape is read as [*shape, D] in the order of its memory."""
        batch, time, height, width = shape
        maps = x.reshape(batch * time, height, width, -1).permute(0, 3, 1, 2)
        weight, bias = self.dsconv.weight, self.dsconv.bias
        own = functional.conv2d(maps, weight[:, :, 2], bias, padding=1, groups=len(weight))
        if time > 1:
            assert time == 2
            past = functional.conv2d(maps[::2], weight[:, :, 1], padding=1, groups=len(weight))
            own = torch.stack([own[::2], own[1::2] + past], 1).flatten(0, 1)
        return own.permute(0, 2, 3, 1).reshape(x.shape)


class UnitAttention(nn.Module):
    """Attention with normalised queries and keys, learned gains, and a bias or null keys."""

    def __init__(self, width: int, heads: int, *, cross: bool = False) -> None:
        super().__init__()
        self._heads = heads
        self.norm = Norm(width)
        self.context_norm = Norm(width) if cross else None
        self.null_kv = nn.Parameter(torch.randn(heads, 2 * NULLS, width // heads)) if cross else None
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.q_scale = nn.Parameter(torch.ones(width // heads))
        self.k_scale = nn.Parameter(torch.ones(width // heads))
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None, context: Tensor | None) -> Tensor:
        """Mixed tokens [N, T, D] of x [N, T, D], with a bias [heads, T, T] or a context [N, M, D]."""
        given = x if self.context_norm is None else self.context_norm(context)
        q = self._split(self.to_q(self.norm(x)))
        k, v = (self._split(one) for one in self.to_kv(given).chunk(2, -1))
        if self.null_kv is not None:
            null = self.null_kv.to(v.dtype).expand(len(x), -1, -1, -1)
            k, v = torch.cat([null[:, :, ::2], k], 2), torch.cat([null[:, :, 1::2], v], 2)
        q = functional.normalize(q, dim=-1)
        k = functional.normalize(k, dim=-1) * (self.q_scale * self.k_scale)  # the gains of both
        mask = None if bias is None else bias.to(v.dtype)
        mixed = functional.scaled_dot_product_attention(
            q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask, scale=SCALE
        )
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self._heads, -1).transpose(1, 2)


class Gated(nn.Module):
    """GEGLU: the first half of the values, gated by the GELU of the second."""

    def forward(self, x: Tensor) -> Tensor:
        values, gate = x.chunk(2, -1)
        return functional.gelu(gate) * values


class Layer(nn.ModuleDict):
    """A block: position generator, self-attention, cross-attention if there is a context, hidden layer."""

    def __init__(self, model: ModelConfig, *, cross: bool) -> None:
        width = model.width
        hidden = int(model.mlp * (2 / 3) * width)
        parts: dict[str, nn.Module] = {PLACE: Place(width), SELF: UnitAttention(width, model.heads)}
        if cross:
            parts[CROSS] = UnitAttention(width, model.heads, cross=True)
        parts[HIDDEN] = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * hidden, bias=False),
            Gated(),
            nn.Identity(),  # LAPA's dropout, which is 0
            nn.Linear(hidden, width, bias=False),
        )
        super().__init__(parts)

    def forward(self, x: Tensor, shape: Shape, bias: Tensor | None, context: Tensor | None) -> Tensor:
        x = x + self[PLACE](x, shape)
        x = x + self[SELF](x, bias, None)
        if CROSS in self:
            x = x + self[CROSS](x, None, context)
        out: Tensor = x + self[HIDDEN](x)
        return out


class Transformer(nn.Module):
    """Blocks, and a norm."""

    def __init__(self, model: ModelConfig, depth: int, *, cross: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(model, cross=cross) for _ in range(depth))
        self.norm_out = Norm(model.width)
        self._recompute = model.checkpointing

    def forward(self, x: Tensor, shape: Shape, bias: Tensor | None, context: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = run_block(layer, self._recompute, x, shape, bias, context)
        out: Tensor = self.norm_out(x)
        return out


class PositionBias(nn.Module):
    """Continuous position bias (Liu et al., arXiv:2111.09883): a small network gives each head a bias for the
    displacement between two patches."""

    displacements: Tensor
    pairs: Tensor

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.1)),
                nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.1)),
                nn.Linear(width, heads),
            ]
        )
        steps = torch.arange(1 - side, side)
        apart = torch.cartesian_prod(steps, steps)
        self.register_buffer("displacements", apart.sign() * apart.abs().add(1).log(), persistent=False)
        patches = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        down, right = (patches[:, None] - patches[None] + side - 1).unbind(-1)
        self.register_buffer("pairs", down * (2 * side - 1) + right, persistent=False)

    def forward(self) -> Tensor:
        """Bias [heads, N, N] of each pair of patches."""
        x = self.displacements
        with torch.autocast(x.device.type, enabled=False):
            for part in self.net:
                x = part(x)
        return x.T[:, self.pairs]


class Pooling(nn.Module):
    """Between tokens of patches and latents: a projection and convolutions on the way in, a projection back.

    It is computed in float32 always: latents are the difference of two pooled frames that are much alike.
    """

    def __init__(self, width: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, dim)
        self.project_out = nn.Linear(dim, width)
        parts: list[nn.Module] = []
        for kernel, stride, padding in POOLS[tokens]:
            parts += [nn.Conv2d(dim, dim, kernel, stride, padding), nn.ReLU()]
        self.cnn_encoder = nn.Sequential(*parts[:-1])

    def forward(self, x: Tensor, side: int) -> Tensor:
        """Pooled frames [N, n, d] of tokens [N, h w, D]."""
        with torch.autocast(x.device.type, enabled=False):
            maps = self.project_in(x.float()).transpose(1, 2).unflatten(2, (side, side))
            pooled: Tensor = self.cnn_encoder(maps).flatten(2).transpose(1, 2)
        return pooled

    def context(self, vectors: Tensor) -> Tensor:
        """What the decoder attends to [B, n, D], of code vectors [B, n, d]."""
        mixed = vectors.reshape(len(vectors), vectors.shape[2], -1).transpose(1, 2)
        context: Tensor = self.project_out(mixed)
        return context
