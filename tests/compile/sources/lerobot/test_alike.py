"""A camera has frames of one size in all episodes; videos of another codec than most do not pass through."""

from __future__ import annotations

import json
from pathlib import Path

import av
import lerobot_writer
import pytest
from lerobot_writer import FPS, TOP, RobotTake, drawn, write_lerobot, write_video

from sample_compile import census_of

TAKES = [RobotTake(steps=steps) for steps in (5, 6, 3, 4, 7)]
"""The last two are in the second video."""


def write_second_video(root: Path, codec: str = "libx264") -> None:
    """Write another second video of camera `top`, which has the last two episodes of `TAKES`."""
    frames = (drawn(TOP, 3, step) for step in range(11))
    options = {"g": "2"} if codec == "libx264" else {"g": "2", "preset": "12"}
    write_video(root / "videos" / TOP / "chunk-000/file-001.mp4", frames, FPS, options, codec)


def test_frames_of_another_size_than_most_reject_an_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_lerobot(tmp_path / "set", TAKES)
    monkeypatch.setattr(lerobot_writer, "SIZE", (64, 96))
    write_second_video(root)
    why = "camera top has frames of 64x96 pixels, in most episodes they have 32x48"
    assert census_of(root, kind="lerobot").table["rejected"].to_pylist() == [None] * 3 + [why] * 2


def test_videos_of_another_codec_than_most_are_compiled_but_not_passed_through(tmp_path: Path) -> None:
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV has no libsvtav1")
    root = write_lerobot(tmp_path / "set", TAKES)
    write_second_video(root, "libsvtav1")
    census = census_of(root, kind="lerobot")
    assert census.rejected.num_rows == 0
    videos = [json.loads(text)["videos"]["top"] for text in census.table["detail"].to_pylist()]
    assert [(one["group"], one["why"]) for one in videos[3:]] == [
        (None, "its codec is av1, that of most is h264")
    ] * 2
    assert videos[0]["why"] is None
