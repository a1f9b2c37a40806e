"""Sequences and actions: what whole latent actions do, and which are most frequent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oxcart.train import plots
from oxcart.train.evaluate.gather import GatheredPairs
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

TOP = 20


def measure(pairs: GatheredPairs, context: Context) -> Iterator[Number | Skip]:
    """No numbers: the linear probe has those of whole latent actions."""
    return iter(())


def top(pairs: GatheredPairs, most: int = TOP) -> list[tuple[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """The most frequent sequences, with the rows of each."""
    found, place, counts = np.unique(pairs.codes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [("-".join(map(str, found[i])), np.flatnonzero(place.reshape(-1) == i)) for i in order]


def draw(pairs: GatheredPairs, context: Context) -> Iterator[Figure | Table]:
    """How frequent the top sequences are in each dataset, and their actions."""
    ranked = top(pairs)
    yield _frequencies(pairs, ranked)
    rows: list[list[Any]] = []
    for name, mine in ranked:
        row: list[Any] = [name, len(mine), round(len(mine) / len(pairs), 4)]
        row += [len(np.unique(pairs.environment[mine])), len(np.unique(pairs.dataset[mine]))]
        if pairs.actions is not None:
            values = pairs.actions[mine]
            values = values[np.isfinite(values).all(1)]
            row.append(values.mean(0).round(4).tolist() if len(values) else None)
        rows.append(row)
    columns = ("sequence", "pairs", "share", "environments", "datasets")
    columns = columns if pairs.actions is None else (*columns, "mean action")  # type: ignore[assignment]
    yield Table(title="Most frequent sequences", columns=columns, rows=rows)
    if pairs.actions is not None:
        yield _scatter(having(pairs, "actions"))


def _frequencies(pairs: GatheredPairs, ranked: list[tuple[str, Any]]) -> Figure:
    plt = plots.pyplot()
    figure, axis = plt.subplots(figsize=(11, 2.8), layout="constrained")
    names = largest(pairs.dataset, len(plots.COLOURS))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        total = (pairs.dataset == name).sum()
        shares = [(pairs.dataset[mine] == name).sum() / total for _, mine in ranked]
        at = np.arange(len(ranked)) + (i - (len(names) - 1) / 2) * width
        axis.bar(at, shares, width, color=plots.COLOURS[i], label=name)
    axis.set_xticks(range(len(ranked)), [name for name, _ in ranked], rotation=60)
    tidy(axis, "", "", "share of the pairs")
    axis.legend(frameon=False, fontsize=8)
    return Figure(
        title="Most frequent sequences",
        png=to_png(figure),
        caption="Whole latent actions. One that is frequent in all datasets is a common motion, or no "
        "motion.",
    )


def _scatter(pairs: GatheredPairs) -> Figure:
    assert pairs.actions is not None
    plt, values = plots.pyplot(), plane(pairs.actions)
    names = sorted(largest(pairs.dataset, 4))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.6 * len(names), 4.2), squeeze=False, layout="constrained"
    )
    low, high = np.quantile(values, [0.005, 0.995], axis=0)
    colours = plt.get_cmap("tab10").colors
    ranked = top(pairs, len(colours))
    for axis, name in zip(axes[0], names, strict=True):
        mine = np.flatnonzero(pairs.dataset == name)
        shown = mine[np.linspace(0, len(mine) - 1, min(len(mine), 3000)).astype(np.int64)]
        axis.scatter(*values[shown].T, s=3, color=plots.FAINT, alpha=0.5, linewidths=0)
        for colour, (label, rows) in zip(colours, ranked, strict=False):
            rows = rows[pairs.dataset[rows] == name]
            axis.scatter(*values[rows].T, s=12, color=colour, label=label, linewidths=0)
        axis.set_xlim(low[0] - 0.05, high[0] + 0.05)
        axis.set_ylim(low[1] - 0.05, high[1] + 0.05)
        tidy(axis, name, "value 0", "value 1")
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return Figure(
        title="Actions of the most frequent sequences",
        png=to_png(figure),
        caption="The first two values of the action; grey: all other pairs.",
    )


STRATEGY = Strategy(
    title="Sequences and actions",
    about="Which whole latent actions occur most, and what do they do?",
    measure=measure,
    draw=draw,
    place=55,
)
