"""Errors of predicted actions on the samples of a loader, beside those of two policies that learn nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.nn import functional

from oxcart.train.data import Batch

Floats = npt.NDArray[np.float32]

THUMB = 12
"""Side, in pixels, of the small frames among which the nearest is found."""


@dataclass(frozen=True, kw_only=True)
class ActedSamples:
    """N samples with their actions, scaled."""

    thumbs: Floats
    """[N, P]: small frames of all cameras."""
    instructions: list[str]
    actions: Floats
    """[N, K, A]."""
    mask: npt.NDArray[np.bool_]
    """[N, K]: which of the actions there are."""


def thumbs_of(batch: Batch) -> Floats:
    """Small frames [N, P] of all cameras of samples, from uint8 [N, k, H, W, 3] each."""
    small = [np.empty((len(batch), 0), np.float32)]
    for one in (batch.frames or {}).values():
        pixels = one.permute(0, 1, 4, 2, 3).flatten(1, 2).float()
        small.append(functional.adaptive_avg_pool2d(pixels, THUMB).flatten(1).numpy())
    return np.concatenate(small, axis=1)


def nearest(train: ActedSamples, thumbs: Floats, instructions: list[str]) -> Floats:
    """Actions [N, K, A] of the train sample whose frames are nearest, among those of the same instruction if
    there are any."""
    found = np.empty((len(thumbs), *train.actions.shape[1:]), np.float32)
    texts = np.array(train.instructions)
    for text in dict.fromkeys(instructions):
        rows = np.flatnonzero(texts == text)
        rows = rows if len(rows) else np.arange(len(texts))
        mine = [i for i, one in enumerate(instructions) if one == text]
        own, far = train.thumbs[rows], thumbs[mine]
        squares = (own * own).sum(1) - 2 * far @ own.T
        found[mine] = train.actions[rows[squares.argmin(1)]]
    return found


def measure(
    seen: ActedSamples, predicted: Floats, train: ActedSamples | None, about: Mapping[str, float]
) -> dict[str, Any]:
    """Mean absolute errors of scaled actions: of whole chunks, of their first actions, and of the baselines.

    Args:
        seen: the samples.
        predicted: [N, K, A], what the policy predicts for them.
        train: train samples of which the baselines are made; None leaves them out.
        about: further values.
    """
    values = {"l1": _error(seen, predicted), "l1_first": _error(seen, predicted, 1), **about}
    if train is not None:
        mean = (train.actions * train.mask[..., None]).sum(0) / np.maximum(train.mask.sum(0), 1)[:, None]
        values["mean_l1"] = _error(seen, np.broadcast_to(mean, seen.actions.shape))
        values["nearest_l1"] = _error(seen, nearest(train, seen.thumbs, seen.instructions))
    return values


def _error(seen: ActedSamples, predicted: npt.NDArray[Any], first: int | None = None) -> float:
    """Mean absolute error of the first actions of the chunks, or of all."""
    mask = seen.mask[:, :first]
    error = np.abs(seen.actions - predicted)[:, :first].mean(-1, dtype=np.float64)
    return float((error * mask).sum() / max(1, mask.sum()))
