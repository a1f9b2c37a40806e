"""Figures are written, whole, and show what they should."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oxcart.train import plots
from oxcart.train.laq import task as laq
from oxcart.train.laq.task import draw_curves
from oxcart.train.plots import (
    Curves,
    codes,
    curves_figure,
    difference,
    grid,
    plain_number,
    plain_ticks,
    pyplot,
    render,
)
from oxcart.train.vla import task as vla


def lines(kind: str, name: str, *values: float | None) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, ten steps apart."""
    return [{"kind": kind, "step": 10 * (i + 1), name: value} for i, value in enumerate(values)]


def panel(kind: str, *names: str, **options: Any) -> Curves:
    return Curves(
        title="title", quantity="unit", kind=kind, lines=[(name, name) for name in names], **options
    )


def ticks(one: Any) -> list[str]:
    """Texts of the ticks of an axis that lie inside its ends."""
    one.figure.draw_without_rendering()
    low, high = sorted(one.get_view_interval())
    shown = zip(one.get_majorticklocs(), one.get_majorticklabels(), strict=True)
    minor = [label.get_text() for label in one.get_minorticklabels()]
    assert not any(minor)
    return [label.get_text() for at, label in shown if low <= at <= high]


@pytest.fixture
def figure() -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def draw(metrics: list[dict[str, Any]], *panels: Curves) -> Any:
        made.append(curves_figure(metrics, panels))
        for axis in made[-1].axes:
            plain_ticks(axis)
        return made[-1]

    yield draw
    for one in made:
        pyplot().close(one)


def test_curves_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    metrics = [{"kind": "train", "step": step, "mse": 1 / step} for step in range(1, 60)]
    metrics += [{"kind": "val", "step": step, "val/copy_ratio": 0.5, "val/usage": 1.0} for step in (20, 40)]
    draw_curves(tmp_path / "loss.png", metrics, ["val"])
    with Image.open(tmp_path / "loss.png") as figure:
        assert figure.width > 3 * 400, "a panel for the loss, one for the ratios, one for the codes"
    draw_curves(tmp_path / "few.png", metrics[:3], ["val"])
    with Image.open(tmp_path / "few.png") as few, Image.open(tmp_path / "loss.png") as many:
        assert few.width < many.width
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.png", "loss.png"]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (2.75e-3, 2.9e-3),
        (0.99e-3, 1.01e-3),
        (1e-3, 9e-3),
        (2e-4, 0.1),
        (1e-9, 1e-8),
        (1e-7, 1e7),
        (3.0, 3.0),
        (12.0, 4e6),
    ],
)
@pytest.mark.parametrize("kind", ["train", "val"])
def test_ticks_are_plain_numbers_at_any_range(
    low: float, high: float, kind: str, figure: Callable[..., Any]
) -> None:
    (axis,) = figure(lines(kind, "loss", high, low), panel(kind, "loss")).axes
    assert axis.get_yscale() == ("log" if kind == "train" else "linear")
    assert ticks(axis.xaxis)
    found = ticks(axis.yaxis)
    assert 2 <= len(found) <= 10, found
    assert len(set(found)) == len(found), found
    for text in (*found, *ticks(axis.xaxis)):
        assert re.fullmatch(r"-?[\d,]+(\.\d+)?(e-?\d+)?", text), text
    bottom, top = axis.get_ylim()
    places = [at for at in axis.get_yticks() if bottom <= at <= top]
    assert [float(text.replace(",", "")) for text in found] == pytest.approx(places, rel=1e-9)
    assert axis.yaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (0.00275, "0.00275"),
        (100000.0, "100,000"),
        (2.5e-7, "2.5e-7"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1e12, "1e12"),
        (1.000005, "1.000005"),
        (1500000.0, "1,500,000"),
    ],
)
def test_a_plain_number_has_the_digits_that_it_needs(value: float, text: str) -> None:
    assert plain_number(value) == text


def test_whatever_is_rendered_has_plain_ticks() -> None:
    made, axis = pyplot().subplots()
    axis.loglog([1, 1000], [2e-3, 3e-3])
    render(made)
    assert ticks(axis.xaxis) == ["1", "10", "100", "1,000"]
    assert not any("$" in text for text in ticks(axis.yaxis))


def test_an_axis_of_powers_of_two_is_plain_too(figure: Callable[..., Any]) -> None:
    (axis,) = figure(lines("val", "a", 1, 2), panel("val", "a")).axes
    axis.set_xscale("log", base=2)
    plain_ticks(axis)
    assert set(ticks(axis.xaxis)) <= {"8", "16", "32"}
    assert ticks(axis.xaxis)


def test_every_panel_says_what_it_is_and_in_which_unit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Curves] = []
    monkeypatch.setattr(plots, "curves", lambda path, metrics, panels: drawn.extend(panels))
    laq.draw_curves(tmp_path / "loss.png", [], ["val"])
    vla.draw_curves(tmp_path / "loss.png", [], ["val"])
    by_metric = {metric.rpartition("/")[2]: one for one in drawn for metric, _ in one.lines}
    assert by_metric["usage"].title == "codes in use"
    assert by_metric["usage"].quantity == "share of (token, code) that occurs"
    assert by_metric["probe_r2"].quantity.startswith("R2")
    assert [metric for metric, _ in by_metric["usage"].lines] == ["val/usage"], "a share has no other's axis"
    assert len({one.title for one in drawn}) == len(drawn)
    assert all(one.quantity for one in drawn)


def test_a_panel_has_its_title_and_its_unit(figure: Callable[..., Any]) -> None:
    metrics = lines("val", "a", 0.1, 0.2) + lines("val", "b", 3)
    several, single = figure(metrics, panel("val", "a"), panel("val", "b")).axes
    assert (several.get_title(), several.get_ylabel()) == ("title", "unit")
    assert (single.get_title(), single.get_xlabel()) == ("title, step 10", "unit")


def test_one_validation_is_a_bar_from_zero_with_its_value(figure: Callable[..., Any]) -> None:
    metrics = lines("val", "a", 0.25) + lines("val", "b", 0.98765)
    (axis,) = figure(metrics, panel("val", "a", "b", ends=(0, 1))).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axis.texts] == ["0.25", "0.988"]
    assert [(bar.get_x(), bar.get_width()) for bar in axis.patches] == [(0, 0.25), (0, 0.98765)]
    assert axis.get_xlim() == (0, 1)
    axis.figure.draw_without_rendering()
    area = axis.get_window_extent()
    for text in axis.texts:
        box = text.get_window_extent()
        assert area.x0 <= box.x0 < box.x1 <= area.x1


@pytest.mark.parametrize("values", [(-0.5, 0.25), (0.0, 0.0), (-3.0, -1.0), (1e-7, 2e-7)])
def test_single_values_of_any_sign_stay_in_their_panel(
    values: tuple[float, float], figure: Callable[..., Any]
) -> None:
    metrics = lines("val", "a", values[0]) + lines("val", "b", values[1])
    (axis,) = figure(metrics, panel("val", "a", "b")).axes
    axis.figure.draw_without_rendering()
    low, high = axis.get_xlim()
    assert low <= min(0.0, *values) <= max(0.0, *values) < high
    area = axis.get_window_extent()
    assert all(text.get_window_extent().x1 <= area.x1 for text in axis.texts)


def test_single_values_of_several_steps_say_their_steps(figure: Callable[..., Any]) -> None:
    metrics = [{"kind": "val", "step": 5, "a": 1.0}, {"kind": "val", "step": 7, "b": 2.0}]
    (axis,) = figure(metrics, panel("val", "a", "b")).axes
    assert axis.get_title() == "title"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a\nstep 5", "b\nstep 7"]


def test_no_curve_is_left_out_or_looks_like_another(figure: Callable[..., Any]) -> None:
    names = [f"run{i}" for i in range(12)]
    metrics = [line for name in names for line in lines("val", name, 1.0, 2.0)]
    (axis,) = figure(metrics, panel("val", *names)).axes
    assert [line.get_label() for line in axis.lines] == names
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 12


def test_a_loss_that_is_not_finite_leaves_a_gap(figure: Callable[..., Any]) -> None:
    (axis,) = figure(lines("train", "loss", 1.0, None, 0.5), panel("train", "loss")).axes
    assert axis.lines[0].get_xdata().tolist() == [10, 30]


def test_a_grid_has_every_image_in_its_place(tmp_path: Path) -> None:
    first = np.zeros((2, 8, 8, 3), np.uint8)
    first[1, ..., 0] = 255
    grid(tmp_path / "deep" / "grid.png", [("one", first), ("other", first[::-1])], ["a", "b"], "title")
    pixels = np.asarray(Image.open(tmp_path / "deep" / "grid.png"))
    red = (pixels == [255, 0, 0]).all(-1)
    rows, columns = np.nonzero(red)
    assert red.sum() == 2 * 128 * 128
    assert red[rows.max(), columns.min()]
    assert red[rows.min(), columns.max()]


def test_a_title_is_never_cut_off(tmp_path: Path) -> None:
    grid(
        tmp_path / "grid.png", [("", np.full((1, 8, 8, 3), 255, np.uint8))], [""], "all of a long title " * 5
    )
    assert (np.asarray(Image.open(tmp_path / "grid.png"))[:, -4:] == 255).all()


def test_codes_are_drawn_of_every_split(tmp_path: Path) -> None:
    row = [[3, 1], [0, 4]], [[2, 2], [1, 3]], [[4, 0], [0, 4]]
    codes(tmp_path / "one.png", [("val", *row)])
    codes(tmp_path / "two.png", [("val", *row), ("val_seen", *row)])
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.height == 2 * one.height
    large = np.eye(64, dtype=int)
    codes(tmp_path / "large.png", [("val", large, large[:1], large[:1])])


def test_a_difference_is_white_where_frames_agree() -> None:
    one = np.full((1, 2, 2, 3), 100, np.uint8)
    other = one.copy()
    other[0, 0, 0] = 110
    found = difference(one, other)
    assert found[0, 1, 1].tolist() == [255, 255, 255]
    assert found[0, 0, 0].tolist() == [225, 225, 225]
