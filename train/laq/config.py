"""Configuration of the latent-action model, and its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.config import (
    DataConfig,
    EvaluateConfig,
    RunConfig,
    TrainConfig,
    ValConfig,
    check_shared,
    resolve,
)
from oxcart.train.evaluate import strategies

PRESETS = Path(__file__).parents[1] / "configs" / "laq"
KINDS = ("plain", "residual", "layered", "lapa")
"""Networks: three forms of our own, and LAPA's."""
STEMS = ("linear", "conv")
QUANTIZERS = ("nsvq", "vq", "diveq", "fsq")
STARTS = ("kmeans", "normal")
REPLACEMENTS = ("share", "lapa")
ON_COLLAPSE = ("warn", "stop", "off")
TEACHERS = ("none", "dis", "raft")
_HALVE = ((3, 3), 2, 1)
POOLS = {
    1: (_HALVE, ((4, 4), 1, 0)),
    2: (_HALVE, ((3, 4), 1, 0)),
    4: (_HALVE, ((3, 3), 1, 0)),
    16: (_HALVE, _HALVE),
    64: (_HALVE,),
    256: (_HALVE,),
}
"""lapa: tokens -> kernel, stride and padding of each convolution that pools patches to them."""
CODEBOOKS = 1 << 28
"""Maximum number of values in the codebooks: a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder and decoder."""

    kind: str = "plain"
    """`plain`: our network, whose decoder draws pixels; `residual`: a change of frame t; `layered`: parts of
    frame t, chosen from the frame alone and moved by the codes alone; `lapa`: LAPA's own network."""
    image_size: int = 256
    """Side of frames, in pixels; frames are resized when they are read."""
    patch: int = 32
    """Side of a patch, in pixels; divides `image_size`."""
    width: int = 1024
    """Width of tokens."""
    heads: int = 16
    """Heads of attention; divides `width`."""
    spatial_depth: int = 8
    """Blocks of the encoder that attend within a frame."""
    temporal_depth: int = 8
    """Blocks of the encoder that attend from a patch to the same patch of the earlier frame."""
    decoder_depth: int = 8
    """Blocks of the decoder; each attends within the frame and to the codes."""
    mlp: float = 4.0
    """Width of the blocks' hidden layer, as a multiple of `width`."""
    stem: str = "linear"
    """How patches become tokens: `linear`, as published, or `conv`: a few strided convolutions."""
    head: str = "linear"
    """How tokens become pixels: `linear`, or `conv`: upsampling beside the frame's own details."""
    difference: bool = False
    """Whether the encoder also sees the difference of the frames."""
    layers: int = 4
    """layered: number of parts that can move independently."""
    checkpointing: bool | None = None
    """Whether to recompute activations in the backward pass: a third more time, much less memory; null: on a
    CPU."""


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Quantizer of latent actions."""

    kind: str = "nsvq"
    """`nsvq`, or `vq`, `diveq`, `fsq` of vector-quantize-pytorch."""
    tokens: int = 4
    """Codes per latent action."""
    codes: int = 8
    """Entries of the codebook."""
    dim: int = 32
    """Width of a code vector; fsq chooses its own."""
    shared: bool = True
    """nsvq: whether all tokens share one codebook."""
    start: str = "kmeans"
    """nsvq: the first codebook: `kmeans` of the first batch, or `normal`, as published."""
    rate: float = 10.0
    """Learning rate of codebooks, as a multiple of `train.lr`; 1 as published. They have to keep up with the
    encoder."""
    replace: str = "share"
    """nsvq: which codes count as unused, and when they are replaced. `share`: those used less than
    `replace_below` times as often as if all codes were used alike, at steps set by `replace_every` but the
    last tenth. `lapa`: those used less than `replace_below` times `data.batch_size`, every 10 steps below
    100, every 100 below 1,000, every 500 below 5,000, then never."""
    replace_every: int = 10
    """nsvq: steps between replacements of unused codes. After a hundred replacements the gap grows tenfold,
    and so on. 0 never replaces."""
    replace_below: float = 0.1
    """nsvq: bound of the use of a code below which it is unused; see `replace`."""
    replace_noise: float = 0.02
    """nsvq: standard deviation of the noise on a copy, relative to the codebook's."""
    harden: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """nsvq: between these shares of the steps, noise turns from a random direction to that of the code, so
    that the decoder sees in training what it sees later. [1, 1], as published, never turns it."""
    follow: float = 1.0
    """nsvq: weight of the distance of codes to their latents, which moves the codes alone. With 0, as
    published, an encoder that learns fast leaves the codebook behind, until one code is nearest to all
    latents."""
    bound: float = 3.0
    """nsvq: soft limit of latents in each dimension; 0 sets no limit."""
    beta: float = 0.25
    """vq: weight of the commitment loss."""
    on_collapse: str = "warn"
    """What to do if training has used few of the codes of a token for `patience` steps: `warn`, `stop` or
    `off`."""
    patience: int = 500
    """Steps for which few codes must have been used; unused codes need some to come back."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """A second decoder, of optical flow."""

    teacher: str = "none"
    """Teacher of optical flow: `dis` (OpenCV's DIS), `raft` (torchvision's RAFT) or `none`."""
    weight: float = 5.0
    """Weight of the flow loss after the warm-up."""
    warmup: int = 50_000
    """Steps over which the weight rises from 0."""
    cell: int = 4
    """Side, in pixels, of a cell for which one vector is predicted; divides `model.patch`, or is larger."""
    weights: str | None = None
    """raft: file with the weights; null uses those that torchvision has on this machine."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of pairs in training; both frames change alike."""

    flip: bool = False
    """Whether to mirror half of the pairs."""
    reverse: bool = False
    """Whether to swap the frames of half of the pairs, which undoes the action."""
    shift: float = 0.0
    """Largest shift of frames, as a share of their sides."""
    colour: float = 0.0
    """Largest change of brightness, contrast and the gain of each channel; also permutes channels."""


@dataclass(frozen=True, kw_only=True)
class LaqValConfig(ValConfig):
    """Validation on held-out environments, and on other sessions of environments seen in training."""

    probes: bool = True
    """Whether to compute linear probes and mutual information, if the datasets have actions."""
    probe_samples: int = 1024
    """Number of train pairs to which the probes are fitted."""


@dataclass(frozen=True, kw_only=True)
class LaqConfig:
    """Configuration of a run of `oxcart train laq`.

    Raises:
        ConfigError: a value is invalid, by itself or in combination with others.
    """

    preset: str = "large"
    """Name of a file in train/configs/laq that gives the defaults."""
    run: RunConfig = field(default_factory=RunConfig)
    """Directory and outputs of the run."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data to read, and their order."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Encoder and decoder."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """Quantizer."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    """Flow decoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training loop."""
    val: LaqValConfig = field(default_factory=LaqValConfig)
    """Validation."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Evaluation of codes at validations."""

    def __post_init__(self) -> None:
        model, quantizer = self.model, self.quantizer
        one_of("model.kind", model.kind, KINDS)
        one_of("model.stem", model.stem, STEMS)
        one_of("model.head", model.head, STEMS)
        one_of("quantizer.kind", quantizer.kind, QUANTIZERS)
        one_of("quantizer.start", quantizer.start, STARTS)
        one_of("quantizer.replace", quantizer.replace, REPLACEMENTS)
        one_of("quantizer.on_collapse", quantizer.on_collapse, ON_COLLAPSE)
        one_of("flow.teacher", self.flow.teacher, TEACHERS)
        check_shared(self)
        if self.train.shard != "none":
            raise ConfigError(
                f"train.shard: expected none, got {self.train.shard}; only oxcart train vla shards its model"
            )
        one_of("evaluate.flow", self.evaluate.flow, TEACHERS)
        if self.evaluate.strategies != ["all"]:
            strategies.check(self.evaluate.strategies, "evaluate.strategies")
        if self.evaluate.strategies and not self.val.every:
            raise ConfigError("evaluate.strategies: expected validations, which measure them; set val.every")
        own = quantizer.kind == "nsvq" and not quantizer.shared
        books = quantizer.tokens if own else 1
        numbers = books * quantizer.codes * quantizer.dim
        if quantizer.kind != "fsq" and numbers > CODEBOOKS:  # fsq rounds, and has no codebook
            raise ConfigError(
                f"quantizer.codes: expected at most {CODEBOOKS:,} numbers in the codebooks "
                f"({books:,} x codes x dim), got {numbers:,}"
            )
        if model.image_size < model.patch:
            raise ConfigError(
                f"model.patch: {model.patch} pixels are more than the frames' {model.image_size} "
                "(model.image_size); choose a smaller patch"
            )
        if model.image_size % model.patch:
            raise ConfigError(
                f"model.image_size: expected a multiple of model.patch {model.patch}, got {model.image_size}"
            )
        if "conv" in (model.stem, model.head) and (model.patch < 2 or model.patch & (model.patch - 1)):
            raise ConfigError(f"model.patch: convolutions need 2, 4, 8, ...; got {model.patch}")
        if model.head == "conv" and model.stem != "conv":
            raise ConfigError("model.head: conv needs the details of model.stem=conv")
        if model.kind == "layered" and self.flow.teacher != "none":
            raise ConfigError(
                f"flow.teacher: {self.flow.teacher} needs a decoder that attends to the codes; "
                "choose model.kind=plain, residual or lapa"
            )
        if model.width % model.heads:
            raise ConfigError(
                f"model.width: expected a multiple of model.heads {model.heads}, got {model.width}"
            )
        if model.mlp * model.width < 1:
            raise ConfigError(f"model.mlp: expected a hidden layer of at least 1, got {model.mlp:g} widths")
        if model.kind == "lapa":
            self._check_lapa()
        if self.flow.teacher != "none" and model.patch % min(self.flow.cell, model.patch):
            raise ConfigError(
                f"flow.cell: expected a divisor of model.patch {model.patch}, got {self.flow.cell}"
            )
        if len(quantizer.harden) != 2 or not 0 <= quantizer.harden[0] <= quantizer.harden[1]:
            raise ConfigError(
                f"quantizer.harden: expected two rising shares such as [0.5, 0.8], got {quantizer.harden}"
            )

    def _check_lapa(self) -> None:
        """Refuse what LAPA's network does not have."""
        model, plain = self.model, ModelConfig()
        for name in ("stem", "head", "difference", "layers"):
            if (value := getattr(model, name)) != getattr(plain, name):
                raise ConfigError(f"model.{name}: model.kind=lapa has no {name}, got {value}; leave it out")
        if model.decoder_depth != model.spatial_depth:
            raise ConfigError(
                f"model.decoder_depth: model.kind=lapa has as many blocks as model.spatial_depth "
                f"{model.spatial_depth}, got {model.decoder_depth}"
            )
        side = model.image_size // model.patch
        tokens = self.quantizer.tokens
        if tokens not in POOLS or pooled(tokens, side) != tokens:
            raise ConfigError(
                f"quantizer.tokens: model.kind=lapa pools 8x8 patches to 1, 2 or 4 tokens, 16x16 to 16 "
                f"or 64, and 32x32 to 256; got {tokens} of {side}x{side}"
            )


def pooled(tokens: int, side: int) -> int:
    """Tokens to which the convolutions of `lapa` pool side x side patches; 0 if there are too few patches."""
    height = width = side
    for (high, wide), stride, padding in POOLS[tokens]:
        height = (height + 2 * padding - high) // stride + 1
        width = (width + 2 * padding - wide) // stride + 1
    return max(0, height) * max(0, width)


def laq_config(
    overrides: Sequence[str], saved: Mapping[str, Any] | None = None, *, resume: bool = False
) -> LaqConfig:
    """Build the configuration from overrides; see `oxcart.train.config.resolve`."""
    return resolve(LaqConfig, PRESETS, overrides, saved, resume=resume)
