"""Figures are written, whole, and show what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from oxcart.train.laq.task import draw_curves
from oxcart.train.plots import codes, difference, grid


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
