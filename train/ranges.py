"""The allowed range of every number in a configuration: one table, so that no field is forgotten.

The upper bounds are not advice. A larger value is a typing mistake that would hang, take all memory, or
overflow float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from oxcart.shards.errors import ConfigError
from oxcart.train.data.workers import THREADS

COUNT = 10**12
SEED = 2**63 - 1
FACTOR = 1e9
"""Upper bound of learning rates and weights of losses: its square is far below the largest float32."""

RANGES: dict[str, tuple[float, float]] = {
    "data.offset": (1, COUNT),
    "data.seconds": (1e-6, 1e6),
    "data.control_rate": (1e-3, 1e6),
    "data.min_motion": (0, FACTOR),
    "data.min_action": (0, FACTOR),
    "data.idle.hold": (0, 1),
    "data.idle.run": (1, COUNT),
    "data.batch_size": (1, COUNT),
    "data.image_size": (1, 1 << 12),
    "data.limit.train": (1, COUNT),
    "data.limit.val": (1, COUNT),
    "data.lanes": (1, 1 << 16),
    "data.block": (1, 1 << 24),
    "data.memory_mb": (1, 1 << 30),
    "data.prefetch": (1, 1 << 10),
    "data.threads": (1, THREADS),
    "data.cache_gb": (1e-6, 1e9),
    "train.steps": (1, COUNT),
    "train.seed": (0, SEED),
    "train.lr": (0, FACTOR),
    "train.betas": (0, 1),
    "train.weight_decay": (0, FACTOR),
    "train.warmup": (0, COUNT),
    "train.final_lr": (0, 1),
    "train.clip": (0, 1e30),
    "train.accumulate": (1, COUNT),
    "train.log_every": (1, COUNT),
    "train.save_every": (1, COUNT),
    "train.threads": (1, THREADS),
    "train.timeout": (1, 10**6),
    "val.every": (0, COUNT),
    "val.samples": (1, COUNT),
    "val.batch_size": (1, COUNT),
    "val.seed": (0, SEED),
    "val.images": (1, 1 << 10),
    "val.probe_samples": (1, COUNT),
    "val.baselines": (0, COUNT),
    "evaluate.every": (1, COUNT),
    "evaluate.samples": (1, COUNT),
    "evaluate.frames": (0, COUNT),
    "model.image_size": (1, 1 << 12),
    "model.patch": (1, 1 << 12),
    "model.width": (1, 1 << 16),
    "model.heads": (1, 1 << 16),
    "model.spatial_depth": (0, 1 << 10),
    "model.temporal_depth": (0, 1 << 10),
    "model.decoder_depth": (1, 1 << 10),
    "model.mlp": (0, 1 << 10),
    "model.layers": (1, 1 << 8),
    "quantizer.tokens": (1, 1 << 10),
    "quantizer.codes": (2, 1 << 20),
    "quantizer.dim": (1, 1 << 16),
    "quantizer.replace_every": (0, COUNT),
    "quantizer.replace_below": (0, 1),
    "quantizer.replace_noise": (0, FACTOR),
    "quantizer.harden": (0, FACTOR),
    "quantizer.follow": (0, FACTOR),
    "quantizer.bound": (0, FACTOR),
    "quantizer.beta": (0, FACTOR),
    "quantizer.rate": (0, FACTOR),
    "quantizer.patience": (1, COUNT),
    "flow.cell": (1, 1 << 12),
    "flow.weight": (0, FACTOR),
    "flow.warmup": (0, COUNT),
    "augment.shift": (0, 1),
    "augment.colour": (0, 1),
    "augment.light": (0, 1),
    "data.frames": (-1024, 1024),
    "data.labelled_share": (0.001, 0.999),
    "policy.horizon": (1, 1 << 10),
    "policy.execute": (1, 1 << 10),
    "policy.denoise": (1, 1 << 10),
    "policy.action_weight": (0, FACTOR),
    "policy.code_weight": (0, FACTOR),
    "small.channels": (4, 1 << 12),
    "small.keypoints": (1, 1 << 12),
    "small.words": (8, 1 << 12),
    "small.width": (8, 1 << 16),
    "small.layers": (0, 1 << 8),
    "vla.new_rate": (0, FACTOR),
    "vla.noise": (0, FACTOR),
    "lora.rank": (1, 1 << 16),
    "lora.alpha": (0, FACTOR),
    "lora.dropout": (0, 0.999),
}
"""Dotted key -> smallest and largest value of the number, or of each number of a list."""
ELSEWHERE = ("data.mix", "data.per_episode", "data.actions")
"""Keys whose values may also be words; they are checked together with the words."""


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse numbers of a configuration that are not finite, or out of their range.

    Args:
        values: dotted key -> value.

    Raises:
        ConfigError: a number is refused; the message says what was expected.
    """
    for key, value in values.items():
        if key in ELSEWHERE:
            continue
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if not -math.inf < number < math.inf:  # isfinite() has no answer for integers of any length
                raise ConfigError(f"{key}: expected a finite number, got {number}")
            section = key.rpartition(".")[0]
            least, most = RANGES[section if section in RANGES else key]  # numbers may go by name
            if number < least:
                raise ConfigError(f"{key}: expected at least {least:g}, got {number}")
            if number > most:
                raise ConfigError(f"{key}: expected at most {most:g}, got {number}")
