"""What can be configured of the latent-action model, and what cannot go together."""

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
OUTPUTS = ("plain", "residual", "layered")
STEMS = ("linear", "conv")
QUANTIZERS = ("nsvq", "vq", "diveq", "fsq")
TEACHERS = ("none", "dis", "raft")
CODEBOOKS = 1 << 28
"""Numbers that codebooks hold at most: a gigabyte."""


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
class LaqValConfig(ValConfig):
    """Validation on held-out environments, beside other sessions of environments that were seen."""

    probes: bool = True
    """Linear probes and mutual information, where the datasets have actions."""
    probe_samples: int = 1024
    """Pairs of train that the probes are fitted on."""


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
    val: LaqValConfig = field(default_factory=LaqValConfig)
    """Validation."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """What codes mean, at validations."""

    def __post_init__(self) -> None:
        model, quantizer = self.model, self.quantizer
        one_of("model.output", model.output, OUTPUTS)
        one_of("model.stem", model.stem, STEMS)
        one_of("model.head", model.head, STEMS)
        one_of("quantizer.kind", quantizer.kind, QUANTIZERS)
        one_of("flow.teacher", self.flow.teacher, TEACHERS)
        check_shared(self)
        one_of("evaluate.flow", self.evaluate.flow, TEACHERS)
        if self.evaluate.strategies != ["all"]:
            strategies.check(self.evaluate.strategies, "evaluate.strategies")
        if self.evaluate.strategies and not self.val.every:
            raise ConfigError("evaluate.strategies: are measured at validations; set val.every")
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
        if len(quantizer.harden) != 2 or not 0 <= quantizer.harden[0] <= quantizer.harden[1]:
            raise ConfigError(
                f"quantizer.harden: expected two rising shares such as [0.5, 0.8], got {quantizer.harden}"
            )


def laq_config(
    overrides: Sequence[str], saved: Mapping[str, Any] | None = None, *, resume: bool = False
) -> LaqConfig:
    """The configuration that overrides ask for; see `oxcart.train.config.resolve`."""
    return resolve(LaqConfig, PRESETS, overrides, saved, resume=resume)
