"""Figures show what went in, what came out and what it was to be, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oxcart.cli.outputs import FRAME
from oxcart.train import plots
from oxcart.train.vla.figures import Panel, draw_panel, draw_prediction
from oxcart.train.vla.predict import Prediction

RED, BLUE = [200, 10, 10], [10, 10, 200]
FOUND = Prediction(
    image=np.full((8, 8, 3), RED, np.uint8),
    instruction="push the red block to the left of the drawer",
    codes=[3, 0, 7],
    probabilities=[[1.0]] * 3,
    frame=np.full((8, 8, 3), BLUE, np.uint8),
    missing="",
)


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Columns, rows, title and caption of every grid that is drawn."""
    made: list[tuple[Any, ...]] = []
    grid = plots.grid

    def noted(path: Path, *parts: Any) -> None:
        made.append(parts)
        grid(path, *parts)

    monkeypatch.setattr(plots, "grid", noted)
    return made


def squares(path: Path) -> list[tuple[int, ...]]:
    """Colours that fill 128 x 128 pixels of an image, from left to right."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    found = {tuple(one): np.nonzero((pixels == one).all(-1))[1] for one in (RED, BLUE)}
    filled = {colour: columns.min() for colour, columns in found.items() if len(columns) == 128 * 128}
    return sorted(filled, key=lambda colour: int(filled[colour]))


def test_a_prediction_shows_its_frame_its_instruction_its_codes_and_the_next_frame(
    tmp_path: Path, grids: list[tuple[Any, ...]]
) -> None:
    draw_prediction(tmp_path / "a.png", FOUND)
    assert squares(tmp_path / "a.png") == [tuple(RED), tuple(BLUE)]
    ((columns, (row,), _, caption),) = grids
    assert [name for name, _ in columns] == ["frame", "next frame"]
    assert row.replace("\n", " ") == f"{FOUND.instruction} predicted 3-0-7"
    assert "The codes 3-0-7 are predicted from the frame and the instruction." in caption
    assert "draws the next frame" in caption
    with open(tmp_path / "a.png", "rb") as file:
        assert FRAME.left_by_us(file), "the next one may replace it"


def test_without_a_latent_action_model_there_is_no_next_frame_and_no_word_of_one(
    tmp_path: Path, grids: list[tuple[Any, ...]]
) -> None:
    draw_prediction(tmp_path / "a.png", replace(FOUND, frame=None, instruction="", missing="none"))
    assert squares(tmp_path / "a.png") == [tuple(RED)]
    ((_, (row,), _, caption),) = grids
    assert row == "(no instruction)\npredicted 3-0-7"
    assert "next frame" not in caption


def test_samples_name_true_and_predicted_codes(tmp_path: Path, grids: list[tuple[Any, ...]]) -> None:
    panel = Panel(
        frames=torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        true=torch.tensor([[1, 2]]),
        predicted=torch.tensor([[1, 3]]),
        instructions=["push"],
    )
    draw_panel(tmp_path / "a.png", panel, None, "val", {"step": 20, "val/accuracy": 0.5})
    ((_, (row,), title, caption),) = grids
    assert row == "push\ntrue 1-2\npredicted 1-3"
    assert title == "val, step 20, 50% of codes right"
    assert "true codes" in caption


def test_a_caption_stays_inside_its_image(tmp_path: Path) -> None:
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    plots.grid(tmp_path / "a.png", [("", white)], [""], "", "word " * 60)
    plots.grid(tmp_path / "b.png", [("", white)], [""], "")
    long, none = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert long.shape[1] == none.shape[1]
    assert long.shape[0] > none.shape[0] + 3 * 15
    assert (long[:, -4:] == 255).all()
    assert (long[none.shape[0] :] < 128).any()
