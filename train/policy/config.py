"""Configuration of a policy that acts, and its checks."""

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
from oxcart.train.data.normalizer import METHODS

PRESETS = Path(__file__).parents[1] / "configs" / "policy"
BACKBONES = ("small", "codes")
LOSSES = ("l1", "flow")


@dataclass(frozen=True, kw_only=True)
class PolicyDataConfig(DataConfig):
    """Data to read, and what may be used of them."""

    cameras: list[str] = field(default_factory=list)
    """Cameras that the policy sees, by name or role; an empty list takes all of the first dataset."""
    image_size: int | None = None
    """Side, in pixels, to which the frames of every camera are resized; null keeps the stored sizes."""
    frames: list[int] = field(default_factory=lambda: [0])
    """Steps of the frames that the policy sees, relative to the step at which it acts: [-2, 0] shows the past
    as well. [0, 1] shows what follows, which makes an inverse-dynamics model: with policy.horizon=1 and
    policy.state=false it tells the action between two frames, for `oxcart label --policy`."""
    codes: list[str] = field(default_factory=list)
    """Latent-action labels written by `oxcart label`, one file per dataset: the policy learns them too, on
    all episodes."""
    pseudo: list[str] = field(default_factory=list)
    """Actions told by an inverse-dynamics model, written by `oxcart label --policy`, one file per dataset:
    they stand in for the actions that may not be used."""
    actions: Any = None
    """Episodes of train whose actions and states may be used: a share of each dataset (0.05; 1.0 is all), or
    a whole number of episodes of each (20). They are the first by the hash of their keys, so 5 are among 20.
    Of all others nothing but frames, instructions and codes is used. null uses all actions."""
    labelled_share: float = 0.5
    """Share of each batch that comes from episodes with actions, where there are others."""


@dataclass(frozen=True, kw_only=True)
class PolicyModelConfig:
    """What the policy predicts, and how it learns that."""

    backbone: str = "small"
    """`small`: a convolutional network with language, for a CPU; `codes`: a decoder of codes, which sees the
    codes of `data.codes` and the state instead of frames."""
    loss: str = "l1"
    """`l1`: actions are regressed, and their absolute error is the loss; `flow`: flow matching, which draws
    actions from noise."""
    horizon: int = 8
    """Actions that are predicted at once."""
    execute: int = 4
    """Actions that are carried out before the next prediction."""
    denoise: int = 10
    """Steps in which `flow` turns noise into actions."""
    state: bool = True
    """Whether the policy reads the robot's state."""
    normalisation: str = "quantile"
    """How actions and states are scaled, one of those of `oxcart.Normalizer`."""
    action_weight: float = 1.0
    """Weight of the loss on actions."""
    code_weight: float = 0.3
    """Weight of the loss on codes, where there are any."""


@dataclass(frozen=True, kw_only=True)
class SmallConfig:
    """Size of the network of `policy.backbone=small`."""

    channels: int = 16
    """Channels of the first convolution; later ones have twice and three times as many."""
    keypoints: int = 24
    """Places that each camera is searched for at each of two scales."""
    words: int = 64
    """Width of the encoding of an instruction."""
    width: int = 256
    """Width of the trunk."""
    layers: int = 2
    """Layers of the trunk. A decoder of codes without any is linear."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Configuration of a run of `oxcart train policy`.

    Raises:
        ConfigError: a value is invalid, by itself or in combination with others.
    """

    preset: str = "small"
    """Name of a file in train/configs/policy that gives the defaults."""
    run: RunConfig = field(default_factory=lambda: RunConfig(dir="runs/policy"))
    """Directory and outputs of the run."""
    data: PolicyDataConfig = field(default_factory=PolicyDataConfig)
    """Data to read, and their order."""
    policy: PolicyModelConfig = field(default_factory=PolicyModelConfig)
    """What the policy predicts."""
    small: SmallConfig = field(default_factory=SmallConfig)
    """The small network."""
    augment: FrameAugmentConfig = field(default_factory=FrameAugmentConfig)
    """Augmentation."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training loop."""
    val: ComparedValConfig = field(default_factory=ComparedValConfig)
    """Validation."""

    def __post_init__(self) -> None:
        policy, data = self.policy, self.data
        one_of("policy.backbone", policy.backbone, BACKBONES)
        one_of("policy.loss", policy.loss, LOSSES)
        one_of("policy.normalisation", policy.normalisation, METHODS)
        check_shared(self)
        if policy.execute > policy.horizon:
            raise ConfigError(
                f"policy.execute: expected at most policy.horizon, {policy.horizon}, got {policy.execute}"
            )
        if data.actions is not None:
            share = isinstance(data.actions, float) and 0 < data.actions <= 1
            count = isinstance(data.actions, int) and not isinstance(data.actions, bool) and data.actions > 0
            if not share and not count:
                raise ConfigError(
                    "data.actions: expected a share above 0 and up to 1.0, or a number of episodes, got "
                    f"{data.actions!r}"
                )
        steps = data.frames
        if not steps or steps != sorted(set(steps)):
            raise ConfigError(f"data.frames: expected steps that rise, such as [-2, 0], got {steps}")
        if policy.backbone == "codes" and (not data.codes or data.pseudo):
            raise ConfigError(
                "policy.backbone: codes sees the labels of data.codes, which are needed, and no data.pseudo"
            )
        if self.train.shard == "full":
            raise ConfigError("train.shard: full is only for oxcart train vla; leave it out")


def policy_config(
    overrides: Sequence[str], saved: Mapping[str, Any] | None = None, *, resume: bool = False
) -> PolicyConfig:
    """Build the configuration from overrides; see `oxcart.train.config.resolve`."""
    return resolve(PolicyConfig, PRESETS, overrides, saved, resume=resume)
