"""The learning rate as a function of the step: linear warm-up, then constant or a cosine; and of rows of a
matrix that learn at another.

No object is stepped, so nothing has to be saved, and no rank can step it too often.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

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


def keep_row_rates(optimizer: torch.optim.Optimizer) -> None:
    """Let the `rows` of a group's matrices learn at `rows_rate` times the rate of the others.

    What AdamW adds to a weight is in proportion to the rate, so what it added to these rows is scaled.
    """
    before: list[tuple[Tensor, Tensor, Tensor, float]] = []

    def look(optimizer: Any, *given: Any) -> None:
        for group in optimizer.param_groups:
            if group.get("rows") and group["rows_rate"] != 1:
                for matrix in group["params"]:
                    rows = torch.tensor(group["rows"], device=matrix.device)
                    before.append((matrix, rows, matrix.detach()[rows], group["rows_rate"]))

    def scale(optimizer: Any, *given: Any) -> None:
        with torch.no_grad():
            for matrix, rows, old, rate in before:
                matrix[rows] = old + rate * (matrix[rows] - old)
        before.clear()

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(scale)
