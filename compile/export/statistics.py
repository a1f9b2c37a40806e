"""Statistics of features, as LeRobot 0.6.1 computes them: those of an episode, and those of several merged.

A quantile is read from a histogram of 5,000 bins between the extremes, and that of several episodes is the
mean of theirs. So quantiles are approximate, and stay what policies trained with LeRobot were normalised by.
Sums are of float64, where LeRobot's are of float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from oxcart.manifests.frames import CameraFrames

Statistics = dict[str, npt.NDArray[Any]]
"""`min`, `max`, `mean`, `std` and each of `QUANTILES` -> values [A], of images [3, 1, 1] in 0 to 1; `count`
-> steps or images [1]."""

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
BINS = 5000
LEAST, MOST, POWER = 100, 10_000, 0.75
"""Images of an episode that are looked at: steps ** POWER, but LEAST if there are as many, at most MOST."""
LARGE, SIDE = 300, 150
"""An image with a side of LARGE pixels is thinned out until its longer side has about SIDE."""
_EDGE = 1e-10


def of_values(values: npt.NDArray[Any]) -> Statistics:
    """Statistics of a feature of numbers [T, A]."""
    values = values.astype(np.float64)
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
    }
    return found | _quantiles([(column, np.ones(len(column))) for column in values.T])


def sampled(steps: int) -> list[int]:
    """The steps of an episode whose images are looked at."""
    count = max(min(LEAST, steps), min(int(steps**POWER), MOST))
    return [int(step) for step in np.round(np.linspace(0, steps - 1, count))]


def of_frames(frames: CameraFrames | npt.NDArray[np.uint8]) -> Statistics:
    """Statistics of a camera of an episode, whose frames are [T, H, W, 3] uint8."""
    _, height, width, _ = frames.shape
    factor = max(height, width) // SIDE if max(height, width) >= LARGE else 1
    counts = np.zeros((3, 256), np.int64)
    steps = sampled(len(frames))
    for step in steps:
        thin = frames[step][::factor, ::factor]
        for channel in range(3):
            counts[channel] += np.bincount(thin[:, :, channel].reshape(-1), minlength=256)
    levels = np.arange(256, dtype=np.float64)
    means = counts @ levels / counts.sum(axis=1)
    squares = (levels - means[:, None]) ** 2
    found = {
        "min": (counts > 0).argmax(axis=1).astype(np.float64),
        "max": 255.0 - (counts[:, ::-1] > 0).argmax(axis=1),
        "mean": means,
        "std": np.sqrt((counts * squares).sum(axis=1) / counts.sum(axis=1)),
    }
    found |= _quantiles([(levels[one > 0], one[one > 0]) for one in counts])
    scaled = {name: (values / 255).reshape(3, 1, 1) for name, values in found.items()}
    return {**scaled, "count": np.array([len(steps)])}


def merged(one: Statistics | None, other: Statistics) -> Statistics:
    """Statistics of what two are of together; None is of nothing."""
    if one is None:
        return other
    counts = [float(part["count"][0]) for part in (one, other)]
    total = sum(counts)

    def mean(name: str) -> npt.NDArray[Any]:
        return (one[name] * counts[0] + other[name] * counts[1]) / total

    middle = mean("mean")
    parts = zip((one, other), counts, strict=True)
    spread = sum((part["std"] ** 2 + (part["mean"] - middle) ** 2) * count for part, count in parts)
    return {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": middle,
        "std": np.sqrt(spread / total),
        "count": one["count"] + other["count"],
        **{name: mean(name) for name in QUANTILES},
    }


def _quantiles(columns: list[tuple[npt.NDArray[np.float64], npt.NDArray[Any]]]) -> Statistics:
    """Quantiles of columns, each given as values and how often each occurs."""
    found = [_of_column(values, counts) for values, counts in columns]
    return {name: np.array([one[name] for one in found]) for name in QUANTILES}


def _of_column(values: npt.NDArray[np.float64], counts: npt.NDArray[Any]) -> dict[str, float]:
    edges = np.linspace(values.min() - _EDGE, values.max() + _EDGE, BINS + 1)
    bins, _ = np.histogram(values, edges, weights=counts)
    sums = np.cumsum(bins)
    found = {}
    for name, share in QUANTILES.items():
        wanted = share * counts.sum()
        at = int(np.searchsorted(sums, wanted))
        if at == 0 or at >= BINS:
            found[name] = float(edges[0] if at == 0 else edges[-1])
        else:
            inside = (wanted - sums[at - 1]) / bins[at] if bins[at] else 0.0
            found[name] = float(edges[at] + inside * (edges[at + 1] - edges[at]))
    return found
