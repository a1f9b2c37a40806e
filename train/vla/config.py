"""What can be configured of a vision-language-action model, and what cannot go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oxcart.shards.choices import one_of
from oxcart.shards.errors import ConfigError
from oxcart.train.config import (
    DataConfig,
    RunConfig,
    TrainConfig,
    ValConfig,
    check_shared,
    resolve,
)

PRESETS = Path(__file__).parents[1] / "configs" / "vla"
HEADS = ("tokens", "replace", "head")
DECODINGS = ("autoregressive", "parallel")
TUNES = ("full", "frozen_vision", "lora")


@dataclass(frozen=True, kw_only=True)
class VlaDataConfig(DataConfig):
    """What is read, and what is learned from it."""

    per_episode: Any = "all"
    """Frames of an episode in an epoch: a number, or "all"."""
    codes: list[str] = field(default_factory=list)
    """Annotations of `oxcart label`, one for each dataset. `offset` then has to be theirs, or null."""
    laq: str | None = None
    """Directory of the run of the latent-action model. With `codes`, it draws what codes mean; without, it
    makes the codes of every batch while training goes on."""
    image_size: int | None = None
    """Pixels of a side that frames are resized to when they are read, before the model's processor does what
    it does; null leaves them as they are stored."""


@dataclass(frozen=True, kw_only=True)
class VlaModelConfig:
    """How codes leave the model, and which of its weights learn."""

    head: str = "tokens"
    """`tokens`: add `<ACT_i>` to the vocabulary; `replace`: reuse its least used ids; `head`: a separate head
    on the hidden state, with vectors of its own for codes that are read."""
    decoding: str = "autoregressive"
    """`autoregressive`: a code at a time, each given those before; `parallel`: all in one forward pass."""
    prompt: str = "robot"
    """Name of a template in train/configs/prompts, or a file like those."""
    tune: str = "full"
    """`full`: all weights learn; `frozen_vision`: all but the vision tower; `lora`: low-rank changes of the
    language model, and the new rows."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time, much less memory."""
    new_rate: float = 1.0
    """Learning rate of new rows and of the head, as a multiple of train.lr."""
    noise: float = 0.1
    """New rows begin at the mean of the real ones, plus noise of this share of their spread."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adaptation, with vla.tune=lora."""

    rank: int = 16
    """Of the changes."""
    alpha: float = 32.0
    """The changes are scaled by alpha / rank."""
    dropout: float = 0.0
    """Of what goes into them."""


@dataclass(frozen=True, kw_only=True)
class VlaAugmentConfig:
    """Changes of frames in training that leave their codes what they are."""

    shift: float = 0.0
    """Frames are moved by up to this share of their sides; what comes in repeats the edge."""
    light: float = 0.0
    """Brightness, contrast and the gain of each channel change by up to this share."""


@dataclass(frozen=True, kw_only=True)
class VlaValConfig(ValConfig):
    """Validation on held-out environments, beside other sessions of environments that were seen."""

    baselines: int = 2048
    """Samples of train that the baselines are made of; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class VlaConfig:
    """All of a run.

    Raises:
        ConfigError: values that are impossible, alone or together.
    """

    preset: str = "base"
    """Which file of train/configs/vla the rest begins with."""
    model: str = ""
    """Vision-language model to begin with: a hub id or a directory."""
    run: RunConfig = field(default_factory=lambda: RunConfig(dir="runs/vla"))
    """Where files go."""
    data: VlaDataConfig = field(default_factory=VlaDataConfig)
    """What is read."""
    vla: VlaModelConfig = field(default_factory=VlaModelConfig)
    """How codes leave the model."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adaptation."""
    augment: VlaAugmentConfig = field(default_factory=VlaAugmentConfig)
    """Changes of frames in training."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""
    val: VlaValConfig = field(default_factory=VlaValConfig)
    """Validation."""

    def __post_init__(self) -> None:
        one_of("vla.head", self.vla.head, HEADS)
        one_of("vla.decoding", self.vla.decoding, DECODINGS)
        one_of("vla.tune", self.vla.tune, TUNES)
        check_shared(self)
        if self.data.seconds is not None:
            raise ConfigError(
                "data.seconds: how far codes reach is theirs to say; leave it out, or give data.offset in "
                "steps to have it checked"
            )


def vla_config(
    overrides: Sequence[str], saved: Mapping[str, Any] | None = None, *, resume: bool = False
) -> VlaConfig:
    """The configuration that overrides ask for; see `oxcart.train.config.resolve`."""
    return resolve(VlaConfig, PRESETS, overrides, saved, resume=resume)
