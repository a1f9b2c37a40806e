"""What a frame alone tells of an action: the baseline that codes have to beat.

    x = features(frames)                     # float [B, 3, H, W] -> float [B, 304]
    predicted = predict(x, actions, environments, x_held_out)

The features are a fixed filter bank: the strength of edges in four directions in each cell of a grid, which
says where things are whatever their colour, and the mean colour of larger cells. Nothing is learned or drawn
but the ridge regression that reads them. Its penalty is chosen by cross-validation over environments: where
frames tell nothing of an action in another environment, it is so large that the mean is predicted.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from oxcart.train import statistics
from oxcart.train.statistics import Features, Floats, Ints

SIDE = 64
"""Maximum side, in pixels, at which edges are measured."""
DIRECTIONS, EDGE_CELLS, COLOUR_CELLS = 4, 8, 4
"""Number of directions of edges, and cells per side for edges and for colours."""
WIDTH = DIRECTIONS * EDGE_CELLS**2 + 3 * COLOUR_CELLS**2
"""Number of features."""
PENALTIES = 10.0 ** np.arange(-2, 6)
"""Ridge penalties to choose from, per sample; the features have unit variance."""
FOLDS = 5
"""Maximum number of parts in a cross-validation."""


def features(frames: Tensor) -> Tensor:
    """Features float32 [B, WIDTH] of frames [B, 3, H, W] in [-1, 1]."""
    shown = functional.adaptive_avg_pool2d(frames.float(), min(SIDE, frames.shape[-1]))
    padded = functional.pad(shown, (1, 1, 1, 1), mode="replicate")
    right = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    angles = [i * math.pi / DIRECTIONS for i in range(DIRECTIONS)]
    edges = [(right * math.cos(one) + down * math.sin(one)).abs().mean(1) for one in angles]
    # The root makes a weak edge count beside a strong one.
    strength = functional.adaptive_avg_pool2d(torch.stack(edges, 1), EDGE_CELLS).sqrt()
    colour = functional.adaptive_avg_pool2d(shown, COLOUR_CELLS)
    return torch.cat([strength.flatten(1), colour.flatten(1)], 1)


def predict(x: Features, y: Floats, groups: Ints, x_new: Features) -> Floats:
    """Predictions [M, A] of a ridge regression; each column has its own penalty.

    Args:
        x: [N, D]: features to fit to.
        y: [N, A]: targets.
        groups: [N]: group of each row; a cross-validation over them chooses the penalties. A single group
            cannot show what holds in others, so the mean is predicted, or nearly.
        x_new: [M, D]: features to predict from.
    """
    scaler = StandardScaler().fit(np.asarray(x, np.float64))
    x, x_new = scaler.transform(x), scaler.transform(x_new)
    fold = statistics.numbered(groups) % FOLDS
    penalties, every = np.repeat(PENALTIES, y.shape[1]), np.tile(y, len(PENALTIES))
    errors = np.zeros(len(penalties))
    for part in range(int(fold.max()) + 1):
        judged, fit = fold == part, fold != part
        if fit.any():
            made = statistics.ridge(x[fit], every[fit], x[judged], penalties * fit.sum())
            errors += ((made - every[judged]) ** 2).sum(0)
    best = errors.reshape(len(PENALTIES), -1).argmin(0) if errors.any() else -1
    return statistics.ridge(x, y, x_new, np.broadcast_to(PENALTIES[best], y.shape[1]) * len(x))
