"""What can be configured of the latent-action model, and what cannot go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oxcart.shards.errors import ConfigError
from oxcart.train.config import (
    DataConfig,
    EvaluateConfig,
    RunConfig,
    TrainConfig,
    ValConfig,
    at_least,
    one_of,
    resolve,
)
from oxcart.train.evaluate import strategies

PRESETS = Path(__file__).parents[1] / "configs" / "laq"
OUTPUTS = ("plain", "residual", "layered")
STEMS = ("linear", "conv")
QUANTIZERS = ("nsvq", "vq", "diveq", "fsq")
TEACHERS = ("none", "dis", "raft")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder and decoder."""

    image_size: int = 256
    """Pixels of a side; frames are resized to it when they are read."""
    patch: int = 32
    """Pixels of a side of a patch; divides `image_size`."""
    width: int = 1024
    """Of tokens."""
    heads: int = 16
    """Of attention; divides `width`."""
    spatial_depth: int = 8
    """Blocks of the encoder that attend within a frame."""
    temporal_depth: int = 8
    """Blocks of the encoder that attend from a patch to itself at the earlier time."""
    decoder_depth: int = 8
    """Blocks of the decoder; each attends within the frame and to the codes."""
    mlp: float = 4.0
    """Width of the blocks' hidden layer, in widths."""
    stem: str = "linear"
    """How patches become tokens: `linear`, as published, or `conv`: a few strided convolutions."""
    head: str = "linear"
    """How tokens become pixels: `linear`, or `conv`: upsampling, with the frame's own details beside it."""
    difference: bool = False
    """Show the encoder the difference of the frames beside the later one."""
    output: str = "plain"
    """What the decoder gives: `plain` pixels; `residual`, added to frame t; `layered`: parts of frame t that
    the frame alone chooses, moved as the codes alone say."""
    layers: int = 4
    """layered: how many parts can move on their own."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time, much less memory."""


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """How a latent action becomes codes."""

    kind: str = "nsvq"
    """`nsvq`, or `vq`, `diveq`, `fsq` of vector-quantize-pytorch."""
    tokens: int = 4
    """Codes of a latent action."""
    codes: int = 8
    """Entries of the codebook."""
    dim: int = 32
    """Of a code vector; fsq chooses its own."""
    shared: bool = True
    """nsvq: one codebook for all tokens; else one for each."""
    replace_every: int = 10
    """nsvq: steps between replacements of unused codes, for the first hundred of them; then the gap is
    tenfold, and so on. 0 never replaces."""
    replace_below: float = 0.1
    """nsvq: a code is unused below this share of what each would get if all were used alike."""
    replace_noise: float = 0.02
    """nsvq: standard deviation of the noise on a copy, relative to the codebook's."""
    harden: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """nsvq: between these shares of the steps, noise turns from any direction to that of the code, so that
    the decoder learns from what it will be given. [1, 1] is as published: never."""
    follow: float = 1.0
    """nsvq: weight of the codes' distance to the latents that they stand for; moves the codes alone. 0 is as
    published: a codebook that an encoder learning fast leaves behind, until one code is nearest to all."""
    bound: float = 3.0
    """nsvq: latents are held within this distance of 0 in each dimension, softly; 0 does not hold them."""
    beta: float = 0.25
    """vq: weight of the commitment loss."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """A second decoder, of optical flow."""

    teacher: str = "none"
    """`dis`: OpenCV's DIS flow; `raft`: torchvision's RAFT; or `none`."""
    weight: float = 5.0
    """Of its loss, after the warm-up."""
    warmup: int = 50_000
    """Steps over which the weight rises from 0."""
    weights: str | None = None
    """raft: a file with its weights; null takes those that torchvision has on this machine."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes that both frames of a pair get alike; the action in them stays an action."""

    flip: bool = False
    """Mirror half of the pairs."""
    reverse: bool = False
    """Swap the frames of half of the pairs: what was done is undone."""
    shift: float = 0.0
    """Up to which share of a side to move the pictures."""
    colour: float = 0.0
    """Up to which share to change brightness, contrast and the weight of each channel; permutes channels."""


@dataclass(frozen=True, kw_only=True)
class LaqConfig:
    """All of a run.

    Raises:
        ConfigError: values that are impossible, alone or together.
    """

    preset: str = "base"
    """Which file of train/configs/laq the rest begins with."""
    run: RunConfig = field(default_factory=RunConfig)
    """Where files go."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is read."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Encoder and decoder."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """Codes."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    """The flow decoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Changes of pairs in training."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""
    val: ValConfig = field(default_factory=ValConfig)
    """Validation."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """What codes mean, at validations."""

    def __post_init__(self) -> None:
        model, quantizer, train = self.model, self.quantizer, self.train
        one_of("model.output", model.output, OUTPUTS)
        one_of("model.stem", model.stem, STEMS)
        one_of("model.head", model.head, STEMS)
        one_of("quantizer.kind", quantizer.kind, QUANTIZERS)
        one_of("flow.teacher", self.flow.teacher, TEACHERS)
        one_of("train.schedule", train.schedule, ("constant", "cosine"))
        one_of("train.precision", train.precision, ("auto", "fp32", "bf16"))
        one_of("train.device", train.device, ("auto", "cpu", "cuda"))
        at_least(
            1,
            model__image_size=model.image_size,
            model__patch=model.patch,
            model__width=model.width,
            model__heads=model.heads,
            model__decoder_depth=model.decoder_depth,
            model__layers=model.layers,
            quantizer__tokens=quantizer.tokens,
            quantizer__dim=quantizer.dim,
            data__batch_size=self.data.batch_size,
            data__offset=self.data.offset,
            data__limit__train=self.data.limit.train,
            data__limit__val=self.data.limit.val,
            data__memory_mb=self.data.memory_mb,
            train__steps=train.steps,
            train__accumulate=train.accumulate,
            train__log_every=train.log_every,
            train__save_every=train.save_every,
            val__samples=self.val.samples,
            val__batch_size=self.val.batch_size,
            val__probe_samples=self.val.probe_samples,
            val__pictures=self.val.pictures,
            evaluate__every=self.evaluate.every,
            evaluate__samples=self.evaluate.samples,
        )
        at_least(
            0,
            model__spatial_depth=model.spatial_depth,
            model__temporal_depth=model.temporal_depth,
            quantizer__replace_every=quantizer.replace_every,
            train__lr=train.lr,
            train__clip=train.clip,
            train__weight_decay=train.weight_decay,
            train__warmup=train.warmup,
            val__every=self.val.every,
            flow__weight=self.flow.weight,
            augment__colour=self.augment.colour,
            augment__shift=self.augment.shift,
            evaluate__frames=self.evaluate.frames,
        )
        one_of("evaluate.flow", self.evaluate.flow, TEACHERS)
        strategies.check(self.evaluate.strategies, "evaluate.strategies")
        if self.evaluate.strategies and not self.val.every:
            raise ConfigError("evaluate.strategies: are measured at validations; set val.every")
        at_least(2, quantizer__codes=quantizer.codes)
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
        if model.output == "layered" and self.flow.teacher != "none":
            raise ConfigError(
                f"flow.teacher: {self.flow.teacher} needs a decoder that attends to the codes; "
                "choose model.output=plain or residual"
            )
        if model.width % model.heads:
            raise ConfigError(
                f"model.width: expected a multiple of model.heads {model.heads}, got {model.width}"
            )
        if model.mlp * model.width < 1:
            raise ConfigError(f"model.mlp: expected a hidden layer of at least 1, got {model.mlp:g} widths")
        if len(train.betas) != 2 or not all(0 <= beta < 1 for beta in train.betas):
            raise ConfigError(f"train.betas: expected two numbers in [0, 1), got {train.betas}")
        if train.threads is not None and train.threads < 1:
            raise ConfigError(f"train.threads: expected at least 1, got {train.threads}")
        if len(quantizer.harden) != 2 or not 0 <= quantizer.harden[0] <= quantizer.harden[1]:
            raise ConfigError(
                f"quantizer.harden: expected two rising shares such as [0.5, 0.8], got {quantizer.harden}"
            )
        if not self.val.splits:
            raise ConfigError("val.splits: expected at least one split, got none; val.every=0 turns it off")


def laq_config(overrides: Sequence[str], saved: Mapping[str, Any] | None = None) -> LaqConfig:
    """The configuration that overrides ask for; see `resolve`."""
    return resolve(LaqConfig, PRESETS, overrides, saved)
