"""Numbers of codes beside their points in a plot, none over another.

Many codes mean nearly the same, so their points lie on a heap. A number that has no room at its point stands
beside it, or farther away at the end of a line; one without room nearby is left out. Numbers that are written
first come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke

from oxcart.train import plots
from oxcart.train.statistics import Floats

CAPTION = "A number without room at its place stands near it or at the end of a line, or is left out."
"""What a caption says of the numbers."""
RINGS, SPOKES = 7, 16
"""Rings of places around a point where its number may stand, and places on each ring."""
GAP = 4.0
"""Pixels between two numbers, at least."""


def write(axis: Any, codes: Iterable[int], points: Floats, **look: Any) -> None:
    """Write codes at points [N, 2] of the axis; `keep_apart` then moves them."""
    halo = [withStroke(linewidth=1.6, foreground="white")]
    for code, (x, y) in zip(codes, points, strict=True):
        axis.text(x, y, str(code), ha="center", va="center", color=plots.INK, path_effects=halo, **look)


def keep_apart(figure: Any) -> None:
    """Move the texts inside the axes of a figure so that none lies over another.

    The layout of the figure is final afterwards, so this is the last step before it is rendered.
    """
    for axis in figure.axes:
        plots.plain_ticks(axis)
        for text in _numbers(axis):
            text.set_in_layout(False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        _spread(axis, figure.canvas.get_renderer())


def _numbers(axis: Any) -> list[Any]:
    """The texts of an axis without its arrows, which matplotlib keeps as empty texts."""
    return [text for text in axis.texts if text.get_text()]


def _spread(axis: Any, renderer: Any) -> None:
    axis.autoscale(False)
    area = axis.get_window_extent(renderer)
    taken: list[Floats] = []
    for text in _numbers(axis):
        box = text.get_window_extent(renderer)
        half = np.array([box.width + GAP, box.height + GAP]) / 2
        point = axis.transData.transform(text.get_position())
        place = _free(point, half, np.array(area.extents), taken)
        if place is None:
            text.set_visible(False)
            continue
        taken.append(np.concatenate([place - half, place + half]))
        ends = axis.transData.inverted().transform([point, place])
        text.set_position(ends[1])
        if (np.abs(place - point) > 3 * half).any():  # a line between neighbours would look like a dash
            axis.plot(*ends.T, color=plots.INK, linewidth=0.5, alpha=0.6, zorder=text.get_zorder() - 0.5)


def _free(point: Floats, half: Floats, area: Floats, taken: Sequence[Floats]) -> Floats | None:
    """The nearest place to a point where a box of half this size lies inside the area and over no other."""
    others = np.array(taken).reshape(-1, 4)
    for ring in range(RINGS + 1):
        angles = np.arange(SPOKES if ring else 1) * 2 * np.pi / SPOKES
        for place in point + ring * 1.1 * half.max() * np.stack([np.cos(angles), np.sin(angles)], 1):
            low, high = place - half, place + half
            inside = (low >= area[:2]).all() and (high <= area[2:]).all()
            if inside and not ((low < others[:, 2:]) & (high > others[:, :2])).all(1).any():
                return place  # type: ignore[no-any-return]
    return None
