"""Numbers of codes in figures never lie over one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from depth import few
from oxcart.train import plots
from oxcart.train.evaluate import apart, strategies
from oxcart.train.evaluate.drawing import panels
from oxcart.train.evaluate.gather import GatheredPairs
from planted import context, planted

DRAWN = ("compass", "flow_tokens", "magnitude", "state", "codebook")
"""Strategies whose figures have numbers of codes."""


@pytest.fixture
def axis() -> Iterator[Any]:
    figure, axes = panels(1, 4, 11.6, 2.8)
    yield axes[0][0]
    plots.pyplot().close(figure)


def overlaps(texts: list[Any]) -> list[tuple[str, str]]:
    """Pairs of texts that share pixels, of those that are shown."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
    ]


def texts_of(axis: Any) -> list[Any]:
    """The texts of an axis that a reader sees."""
    found = [*axis.texts, axis.title, axis.xaxis.label, axis.yaxis.label]
    for one in (axis.xaxis, axis.yaxis):
        low, high = sorted(one.get_view_interval())
        found += [tick.label1 for tick in one.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in found if text.get_visible() and text.get_text()]


def test_numbers_with_room_stay_where_they_are(axis: Any) -> None:
    points = np.array([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])
    apart.write(axis, range(3), points, fontsize=8)
    apart.keep_apart(axis.figure)
    assert [text.get_position() for text in axis.texts] == [pytest.approx(tuple(point)) for point in points]
    assert not axis.lines


@pytest.mark.parametrize("count", [8, 64])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.3])
def test_numbers_on_a_heap_are_moved_apart_and_joined_to_their_points(
    count: int, spread: float, axis: Any
) -> None:
    points = 0.5 + spread * np.random.default_rng(0).normal(size=(count, 2))
    apart.write(axis, range(count), points, fontsize=8)
    apart.keep_apart(axis.figure)
    shown = [text for text in axis.texts if text.get_visible()]
    assert len(shown) >= min(count, 30)
    assert overlaps(shown) == []
    area = axis.get_window_extent()
    for text in shown:
        box = text.get_window_extent()
        assert area.x0 <= box.x0 < box.x1 <= area.x1
        assert area.y0 <= box.y0 < box.y1 <= area.y1
    starts = {tuple(np.round(line.get_xydata()[0], 9)) for line in axis.lines}
    assert starts <= {tuple(point) for point in np.round(points, 9)}
    assert axis.get_xlim() == axis.get_ylim() == (0, 1)


def test_the_first_number_of_a_heap_keeps_its_place(axis: Any) -> None:
    apart.write(axis, [7, 3, 5], np.full((3, 2), 0.5), fontsize=8)
    apart.keep_apart(axis.figure)
    assert axis.texts[0].get_position() == pytest.approx((0.5, 0.5))


def test_arrows_are_left_alone(axis: Any) -> None:
    arrow = axis.annotate("", (0.9, 0.9), (0.1, 0.1), arrowprops={"arrowstyle": "->"})
    apart.write(axis, [1, 2], np.full((2, 2), 0.1), fontsize=8)
    apart.keep_apart(axis.figure)
    assert arrow.get_position() == (0.1, 0.1)


def coded(size: int) -> GatheredPairs:
    """Pairs of four tokens, each of as many codes: those of one direction mean nearly the same."""
    pairs = planted("direction")
    within = np.random.default_rng(1).integers(0, size // 8, (len(pairs), 4))
    return replace(pairs, codes=pairs.codes * (size // 8) + within, size=size)


@pytest.mark.parametrize("size", few([8, 64], 8))
@pytest.mark.parametrize(
    "name", few(["compass", "flow_tokens", "magnitude", "state", "codebook"], "codebook")
)
def test_no_texts_of_a_figure_overlap(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, str]] = []
    render = plots.render

    def measured(figure: Any, *options: Any) -> bytes:
        data = render(figure, *options)
        figure.draw_without_rendering()
        found.extend(overlaps([text for axis in figure.axes for text in texts_of(axis)]))
        return data

    monkeypatch.setattr(plots, "render", measured)
    strategy = strategies.load([name])[name]
    drawn = list(strategy.draw(coded(size), context()))
    assert drawn
    assert found == []
