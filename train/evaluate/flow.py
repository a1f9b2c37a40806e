"""Mean optical flow of pairs, in three ways, in percent of the width.

    meter = flow_meter("dis", None, device)
    flows = meter(frames)                       # uint8 [B, 2, H, W, 3] -> float64 [B, 3, 2]

The plain mean of a field is mostly background, which stands still, so that what moves is diluted by how small
it is. The other two look at what moves: weighted by its own length, or of the pixels that move by more than
STILL alone. x points right and y up, as one would draw it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from oxcart.shards.errors import ConfigError
from oxcart.train.flow import build_teacher
from oxcart.train.laq.config import FlowConfig

Floats = npt.NDArray[np.float64]
FlowMeter = Callable[[npt.NDArray[np.uint8]], Floats]

VARIANTS = ("plain", "weighted", "thresholded")
WEIGHTED = 1
STILL = 1.0
"""Percent of the width that a pixel of a pair moves at least, to count as moving."""


def flow_meter(kind: str, weights: str | None, device: torch.device) -> FlowMeter | str:
    """A meter; or why there is none.

    Args:
        kind: `dis`, `raft` or `none`.
        weights: raft: a file with them.
        device: of RAFT.

    Raises:
        ConfigError: RAFT is asked for and not there.
    """
    if kind == "none":
        return "optical flow was turned off (none)"
    try:
        teacher = build_teacher(FlowConfig(teacher=kind, weights=weights), device)
    except ConfigError as error:
        if kind == "raft":
            raise
        return f"optical flow {str(error).partition(': ')[2]}"
    assert teacher is not None

    def measure(frames: npt.NDArray[np.uint8]) -> Floats:
        if not len(frames):
            return np.zeros((0, len(VARIANTS), 2))
        shown = torch.from_numpy(frames)
        pixels = shown.permute(0, 1, 4, 2, 3).to(device, torch.float32).div(127.5).sub(1)
        field = teacher(shown, pixels).permute(0, 2, 3, 1).cpu().double().numpy()
        return mean_flows(field)

    return measure


def mean_flows(fields: Floats) -> Floats:
    """[B, 3, 2] of flow fields [B, H, W, 2] in pixels, y down."""
    vectors = fields.reshape(len(fields), -1, 2) * (100 / fields.shape[2]) * (1, -1)
    lengths = np.hypot(vectors[..., 0], vectors[..., 1])
    moving = lengths > STILL
    return np.stack(
        [
            vectors.mean(1),
            _mean(vectors, lengths),
            _mean(vectors, moving.astype(np.float64)),
        ],
        1,
    )


def _mean(vectors: Floats, weights: Floats) -> Floats:
    """Of vectors [B, P, 2] by weights [B, P]; 0 where there is no weight."""
    total = weights.sum(1, keepdims=True)
    found: Floats = (vectors * weights[..., None]).sum(1) / np.where(total > 0, total, 1)
    return found
