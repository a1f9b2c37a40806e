"""Frames of large videos have the colours that LeRobot sees."""

from __future__ import annotations

from pathlib import Path

import av
import lerobot_writer
import numpy as np
import pytest
from lerobot_writer import TOP, Frame, RobotTake, write_lerobot

from oxcart.compile.images import Resize
from oxcart.compile.sources import open_source
from oxcart.compile.sources.base import Film, SourceConfig


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    monkeypatch.setattr(lerobot_writer, "SIZE", (720, 736))
    return lerobot_writer.SIZE


def test_a_video_that_names_no_standard_is_bt_601_at_any_size(large: tuple[int, int], tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "set", [RobotTake(steps=2)], cameras={TOP: "video"})
    source = open_source(SourceConfig(url=str(root), kind="lerobot"))
    (row,) = source.census(source.files()[0])
    film = source.read(vars(row)).images["top"]
    assert isinstance(film, Film)
    found: Frame = np.empty((2, *large, 3), np.uint8)
    film.play(found, Resize())
    with av.open(str(next(root.rglob("*.mp4")))) as container:
        expected = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(found.astype(int) - expected).max() <= 4
