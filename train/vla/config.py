"""Configuration of a vision-language-action model, and its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.config import (
    ComparedValConfig,
    DataConfig,
    FrameAugmentConfig,
    RunConfig,
    TrainConfig,
    check_shared,
    resolve,
)

PRESETS = Path(__file__).parents[1] / "configs" / "vla"
HEADS = ("tokens", "head")
DECODINGS = ("autoregressive", "parallel")
TUNES = ("full", "frozen_vision", "lora")


@dataclass(frozen=True, kw_only=True)
class VlaDataConfig(DataConfig):
    """Data to read, and the codes to learn."""

    per_episode: Any = "all"
    """Frames per episode in an epoch: a number, or "all"."""
    codes: list[str] = field(default_factory=list)
    """Latent-action labels written by `oxcart label`, one file per dataset. `offset` must be theirs, or
    null."""
    laq: str | None = None
    """Directory of the latent-action model's run. With `codes`, it only draws what codes mean; without, it
    makes the codes of each batch during training."""
    image_size: int | None = None
    """Side, in pixels, to which frames are resized when they are read, before the model's processor; null
    keeps the stored size."""


@dataclass(frozen=True, kw_only=True)
class VlaModelConfig:
    """How the model emits codes, and which weights learn."""

    head: str = "tokens"
    """`tokens`: add `<ACT_i>` to the vocabulary; `head`: a separate head on the hidden state, with its own
    input vectors for codes."""
    decoding: str = "autoregressive"
    """`autoregressive`: one code at a time, given those before; `parallel`: all in one forward pass."""
    prompt: str = "robot"
    """Name of a template in train/configs/prompts, or the path of such a file."""
    tune: str = "full"
    """`full`: all weights learn; `frozen_vision`: all but the vision tower; `lora`: low-rank adapters of the
    language model, and the new rows."""
    checkpointing: bool = False
    """Whether to recompute activations in the backward pass: a third more time, much less memory."""
    new_rate: float = 1.0
    """Learning rate of new rows and of the head, as a multiple of train.lr."""
    noise: float = 0.1
    """New rows begin at the mean of the real rows, plus noise of this share of their spread."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adaptation, with vla.tune=lora."""

    rank: int = 16
    """Rank of the adapters."""
    alpha: float = 32.0
    """Scale of the adapters, times their rank."""
    dropout: float = 0.0
    """Dropout on the input of the adapters."""


@dataclass(frozen=True, kw_only=True)
class VlaConfig:
    """Configuration of a run of `oxcart train vla`.

    Raises:
        ConfigError: a value is invalid, by itself or in combination with others.
    """

    preset: str = "base"
    """Name of a file in train/configs/vla that gives the defaults."""
    model: str = ""
    """Vision-language model to start from: a hub id or a directory."""
    run: RunConfig = field(default_factory=lambda: RunConfig(dir="runs/vla"))
    """Directory and outputs of the run."""
    data: VlaDataConfig = field(default_factory=VlaDataConfig)
    """Data to read, and their order."""
    vla: VlaModelConfig = field(default_factory=VlaModelConfig)
    """How codes leave the model."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adaptation."""
    augment: FrameAugmentConfig = field(default_factory=FrameAugmentConfig)
    """Augmentation."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training loop."""
    val: ComparedValConfig = field(default_factory=ComparedValConfig)
    """Validation."""

    def __post_init__(self) -> None:
        one_of("vla.head", self.vla.head, HEADS)
        one_of("vla.decoding", self.vla.decoding, DECODINGS)
        one_of("vla.tune", self.vla.tune, TUNES)
        check_shared(self)
        if self.train.shard == "full":
            for key, value, wanted in (
                ("vla.tune", self.vla.tune, ("full", "frozen_vision")),
                ("vla.head", self.vla.head, ("tokens",)),
                ("train.compile", self.train.compile, (False,)),
            ):
                if value not in wanted:
                    expected = " or ".join(str(one).lower() for one in wanted)
                    raise ConfigError(f"{key}: expected {expected} with train.shard=full, got {value}")
        if self.data.seconds is not None:
            raise ConfigError(
                "data.seconds: the labels determine the offset; leave it out, or pass data.offset in "
                "steps to have it checked"
            )


def vla_config(
    overrides: Sequence[str], saved: Mapping[str, Any] | None = None, *, resume: bool = False
) -> VlaConfig:
    """Build the configuration from overrides; see `oxcart.train.config.resolve`."""
    return resolve(VlaConfig, PRESETS, overrides, saved, resume=resume)
