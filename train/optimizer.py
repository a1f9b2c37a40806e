"""How weights move: the learning rate of a step, and rows of a matrix that learn at a rate of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from oxcart.train.config import TrainConfig
from oxcart.train.finite import first_row, local


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then constant or a cosine."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * share)


def keep_row_rates(optimizer: torch.optim.Optimizer) -> None:
    """Make the `rows` of a group's matrices learn at `rows_rate` times the rate of the others.

    AdamW's update of a weight is proportional to the learning rate, so its update of these rows is scaled.
    """
    before: list[tuple[Tensor, Tensor, Tensor, float]] = []
    of: dict[Tensor, Tensor] = {}

    def look(optimizer: Any, *given: Any) -> None:
        for group in optimizer.param_groups:
            if group.get("rows") and group["rows_rate"] != 1:
                for matrix in group["params"]:
                    part = local(matrix.detach())
                    if matrix not in of:  # a copy to a GPU in every step would wait for it
                        first = first_row(matrix)
                        inside = [row - first for row in group["rows"] if 0 <= row - first < len(part)]
                        of[matrix] = torch.tensor(inside, dtype=torch.int64, device=part.device)
                    before.append((part, of[matrix], part[of[matrix]], group["rows_rate"]))

    def scale(optimizer: Any, *given: Any) -> None:
        with torch.no_grad():
            for part, rows, old, rate in before:
                part[rows] = old + rate * (part[rows] - old)
        before.clear()

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(scale)
