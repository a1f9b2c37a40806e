"""The learning rate as a function of the step: linear warm-up, then constant or a cosine.

No object is stepped, so nothing has to be saved, and no rank can step it too often.
"""

from __future__ import annotations

import math

from oxcart.train.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of a step, 0 for the first."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * share)
