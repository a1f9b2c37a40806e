"""Moments of actions and states, merged in plan order, so any number of workers gives the same result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Moments = dict[str, Any]
"""`count` of steps, and per value `mean`, `m2` (sum of squared deviations), `min` and `max`."""


def moments(values: npt.NDArray[np.float32]) -> Moments | None:
    """Moments of values [T, A], in float64 and in step order; None if T is 0."""
    if not len(values):
        return None
    exact = (
        values.astype(np.float64) + 0.0
    )  # -0.0 becomes 0.0, or their order would decide which is the least
    mean = np.add.reduce(exact, axis=0) / len(exact)
    squares = np.add.reduce((exact - mean) ** 2, axis=0)
    return {
        "count": len(exact),
        "mean": mean.tolist(),
        "m2": squares.tolist(),
        "min": exact.min(axis=0).tolist(),
        "max": exact.max(axis=0).tolist(),
    }


def merge(parts: Iterable[Moments | None]) -> Moments | None:
    """Moments of all parts together (Chan, Golub and LeVeque 1979); None if there are none."""
    total: Moments | None = None
    for part in parts:
        if total is None or part is None:
            total = total or part
            continue
        count = total["count"] + part["count"]
        share = part["count"] / count
        delta = [b - a for a, b in zip(total["mean"], part["mean"], strict=True)]
        total = {
            "count": count,
            "mean": [a + d * share for a, d in zip(total["mean"], delta, strict=True)],
            "m2": [
                a + b + d * d * total["count"] * share
                for a, b, d in zip(total["m2"], part["m2"], delta, strict=True)
            ],
            "min": [min(pair) for pair in zip(total["min"], part["min"], strict=True)],
            "max": [max(pair) for pair in zip(total["max"], part["max"], strict=True)],
        }
    return total


def moments_of(stated: dict[str, Any] | None) -> Moments | None:
    """Moments that have this `summary`, except for the last bits of float64."""
    if stated is None:
        return None
    squares = [std * std * stated["count"] for std in stated["std"]]
    return {**{name: stated[name] for name in ("count", "mean", "min", "max")}, "m2": squares}


def summary(total: Moments | None) -> dict[str, Any] | None:
    """Statistics for the manifest: steps; mean, population standard deviation, min and max per value."""
    if total is None:
        return None
    std = [math.sqrt(value / total["count"]) for value in total["m2"]]
    return {
        "count": total["count"],
        "mean": total["mean"],
        "std": std,
        "min": total["min"],
        "max": total["max"],
    }
