"""What the figures of the strategies share: panels and their style, scatters by code, and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oxcart.train import plots
from oxcart.train.evaluate import apart
from oxcart.train.evaluate.gather import GatheredPairs
from oxcart.train.evaluate.strategy import Figure
from oxcart.train.statistics import Floats, Ints, Strings

LABELLED = 16
"""Maximum number of codes whose numbers stand in a panel."""
SHOWN = 8
"""Maximum number of datasets or environments distinguished in a figure."""
POINTS = 3000
"""Maximum number of pairs in a panel of a scatter plot."""


def panels(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """A figure of rows and columns of plots, and its axes [rows, columns]; sizes are in inches."""
    size = width, height
    return plots.pyplot().subplots(  # type: ignore[no-any-return]
        rows, columns, figsize=size, squeeze=False, layout="constrained", **options
    )


def tidy(axis: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Give an axis the common style of all plots."""
    axis.set_title(title, color=plots.INK, fontsize=10)
    axis.set_xlabel(x, color=plots.INK, fontsize=9)
    axis.set_ylabel(y, color=plots.INK, fontsize=9)
    axis.tick_params(colors=plots.INK, labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(plots.FAINT)


def finished(figure: Any, title: str, caption: str) -> Figure:
    """Render a figure and close it; the numbers of codes in it are moved apart."""
    if any(text.get_text() for axis in figure.axes for text in axis.texts):
        apart.keep_apart(figure)
        caption = f"{caption} {apart.CAPTION}"
    return Figure(title=title, png=plots.render(figure), caption=caption)


def largest(groups: Strings, most: int = SHOWN) -> list[str]:
    """The groups with the most pairs, largest first; "" does not count as a group."""
    names, counts = np.unique(groups[groups != ""], return_counts=True)
    return [str(one) for one in names[np.argsort(-counts, kind="stable")][:most]]


def frequent(codes: Ints, most: int = LABELLED) -> Ints:
    """The codes that most pairs have, most frequent first, of codes [N]."""
    used, counts = np.unique(codes, return_counts=True)
    return used[np.argsort(-counts, kind="stable")][:most]


def thinned(count: int) -> Ints:
    """At most POINTS of `count` rows, spread evenly."""
    return np.linspace(0, count - 1, min(count, POINTS)).astype(np.int64)


def by_dataset(pairs: GatheredPairs, values: Floats) -> dict[str, tuple[Ints, Floats]]:
    """The `parts` of `scatter` where each dataset has its own row."""
    names = sorted(largest(pairs.dataset, 6))
    parts = [(name, np.flatnonzero(pairs.dataset == name)) for name in names]
    return {name if len(names) > 1 else "": (rows, values[rows]) for name, rows in parts}


def scatter(
    pairs: GatheredPairs,
    parts: Mapping[str, tuple[Ints, Floats]],
    labels: Sequence[str],
    title: str,
    caption: str,
) -> Figure:
    """Scatter values by code: a column for each place, and a row for each part.

    Args:
        pairs: whose codes are shown.
        parts: heading -> rows [n] of its pairs, and their values [n, 2].
        labels: of the two axes.
        title: heading of the figure.
        caption: what the values are.
    """
    places = pairs.codes.shape[1]
    figure, axes = panels(len(parts), places, 2.9 * places, 2.7 * len(parts))
    for own, (name, (rows, values)) in zip(axes, parts.items(), strict=True):
        shown = thinned(len(rows))
        low, high = np.quantile(values, [0.005, 0.995], axis=0)
        margin = np.maximum((high - low) * 0.08, 1e-6)
        for place, axis in enumerate(own):
            codes = pairs.codes[rows, place]
            axis.scatter(*values[shown].T, c=codes[shown], cmap="tab10", s=4, alpha=0.55, linewidths=0)
            used = frequent(codes)
            means = np.stack([values[codes == code].mean(0) for code in used])
            apart.write(axis, used, means, fontsize=9, fontweight="bold")
            axis.set_xlim(low[0] - margin[0], high[0] + margin[0])
            axis.set_ylim(low[1] - margin[1], high[1] + margin[1])
            heading = f"{name}, token {place}" if name else f"token {place}"
            tidy(axis, heading, labels[0], "" if place else labels[1])
    return finished(
        figure,
        title,
        f"{caption} Points are coloured by the code of one place; bold numbers stand at the mean of their "
        f"code, for the {LABELLED} most frequent.",
    )
