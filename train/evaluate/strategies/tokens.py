"""Tokens and actions: every pair's action, coloured by its code, with the mean and covariance of each "
"token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oxcart.train import plots
from oxcart.train.evaluate.gather import Floats, GatheredPairs
from oxcart.train.evaluate.strategy import (
    Context,
    Figure,
    Number,
    Skip,
    Strategy,
    Table,
    having,
    largest,
    plane,
    tidy,
    to_png,
)

POINTS = 3000
"""Of a panel, at most."""
LISTED = 256


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """No numbers: those are the compass's and the consistency's."""
    return iter(())


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table]:
    """A scatter of each place and dataset; a table of means and covariances."""
    pairs = having(pairs, "actions")
    assert pairs.actions is not None
    yield Figure(
        title="Actions by token",
        png=scatter(pairs, plane(pairs.actions)),
        caption="The first two values of each pair's action, coloured by the code of one place; bold "
        "numbers stand at the mean of their code.",
    )
    rows: list[list[Any]] = []
    for dataset in np.unique(pairs.dataset):
        for place in range(pairs.codes.shape[1]):
            for code in range(pairs.size):
                mine = (pairs.dataset == dataset) & (pairs.codes[:, place] == code)
                if mine.sum() > 1 and len(rows) < LISTED:
                    values = pairs.actions[mine]
                    covariance = np.atleast_2d(np.cov(values.T)).round(6).tolist()
                    mean = values.mean(0).round(6).tolist()
                    rows.append([dataset, f"{place}:{code}", int(mine.sum()), mean, covariance])
    columns = ("dataset", "token", "pairs", "mean action", "covariance")
    yield Table(title="Actions of each token", columns=columns, rows=rows)


def scatter(pairs: GatheredPairs, values: Floats) -> bytes:
    """Values [N, 2] by code: a column for each place, a row for each dataset."""
    plt, places = plots.pyplot(), pairs.codes.shape[1]
    names = sorted(largest(pairs.dataset, 6))
    figure, axes = plt.subplots(
        len(names), places, figsize=(2.9 * places, 2.7 * len(names)), squeeze=False, layout="constrained"
    )
    for row, name in enumerate(names):
        mine = np.flatnonzero(pairs.dataset == name)
        shown = mine[np.linspace(0, len(mine) - 1, min(len(mine), POINTS)).astype(np.int64)]
        low, high = np.quantile(values[mine], [0.005, 0.995], axis=0)
        margin = np.maximum((high - low) * 0.08, 1e-6)
        for place, axis in enumerate(axes[row]):
            codes = pairs.codes[shown, place]
            axis.scatter(*values[shown].T, c=codes, cmap="tab10", s=4, alpha=0.55, linewidths=0)
            used, counts = np.unique(pairs.codes[mine, place], return_counts=True)
            for code in used[np.argsort(-counts, kind="stable")][:16]:
                x, y = values[mine][pairs.codes[mine, place] == code].mean(0)
                axis.text(x, y, str(code), fontsize=9, fontweight="bold", ha="center", va="center")
            axis.set_xlim(low[0] - margin[0], high[0] + margin[0])
            axis.set_ylim(low[1] - margin[1], high[1] + margin[1])
            heading = f"token {place}" if len(names) == 1 else f"{name}, token {place}"
            tidy(axis, heading, "value 0", "" if place else "value 1")
    return to_png(figure)


STRATEGY = Strategy(
    title="Tokens and actions",
    about="Every pair's action beside its codes, by dataset.",
    needs=("actions",),
    measure=measure,
    draw=draw,
    place=12,
)
