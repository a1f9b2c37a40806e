"""A video has the frames of the episode, as many as there are, and is written whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from oxcart.compile.images import Resize
from oxcart.compile.sample.rlds import RldsSampleConfig
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from sample_compile import CAMERAS, compile_sample


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Frames of odd sides, 47x63, at 10 steps per second."""
    sample = RldsSampleConfig(kitchens=2, sessions=1, episodes=1, steps=12, size=64, files=1)
    folder = tmp_path_factory.mktemp("dataset")
    return Dataset.open(
        str(compile_sample(folder, sample, cameras=CAMERAS, resize=Resize(size=(47, 63))).out)
    )


def decoded(path: Path) -> tuple[Any, Fraction, str]:
    """Frames [n, H, W, 3], frames per second, and pixel format of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert stream.average_rate is not None
        return np.stack(frames), stream.average_rate, str(stream.pix_fmt)


def test_a_video_has_the_frames_of_the_episode(dataset: Dataset, tmp_path: Path) -> None:
    for episode in dataset:
        for camera in CAMERAS:
            path = episode.video(tmp_path / "new" / "out.mp4", camera=camera)
            assert path == tmp_path / "new" / "out.mp4"
            frames, rate, pixels = decoded(path)
            assert (rate, pixels) == (10, "yuv420p")
            assert frames.shape == (episode.steps, 48, 64, 3)
            wanted = np.asarray(episode.frames(camera), np.int16)
            errors = np.abs(frames[:, :47, :63] - wanted)
            assert errors.mean() < 6
            others = np.abs(frames[:, :47, :63] - np.roll(wanted, 1, axis=0)).mean()
            assert errors.mean() < others
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.mp4"]


def test_the_frame_rate_is_what_was_asked_for_else_the_control_rate_else_ten(
    dataset: Dataset, tmp_path: Path
) -> None:
    episode, path = dataset[0], tmp_path / "x.mp4"
    of_rate = [replace(episode, row={**episode.row, "control_rate": rate}) for rate in (5.0, None)]
    for one, fps, expected in (
        (episode, 30, 30),
        (episode, 0.5, Fraction(1, 2)),
        (of_rate[0], None, 5),
        (of_rate[1], None, 10),
        (of_rate[1], 29.97, Fraction(2997, 100)),
    ):
        assert decoded(one.video(str(path), fps=fps))[1] == expected


def test_what_cannot_be_written_is_said_in_one_line_and_changes_nothing(
    dataset: Dataset, tmp_path: Path
) -> None:
    episode, path = dataset[0], tmp_path / "x.mp4"
    path.write_text("what was there")
    for fps in (0, -1, float("nan"), float("inf"), 1e6, "10"):
        with pytest.raises(ConfigError, match=r"^fps: expected 0.1 to 1000 frames per second, got"):
            episode.video(path, fps=fps)  # type: ignore[arg-type]
    for place in (str(tmp_path / "x.gif"), "s3://bucket/x.mp4", ""):
        with pytest.raises(ConfigError, match=f"^path: expected a file on this .* got '{place}'$"):
            episode.video(place)
    with pytest.raises(ConfigError, match="camera 'side': the dataset has"):
        episode.video(path, camera="side")
    with pytest.raises(StoreError, match=r"x\.mp4/y\.mp4: write: "):
        episode.video(path / "y.mp4")
    assert path.read_text() == "what was there"
    assert [one.name for one in tmp_path.iterdir()] == ["x.mp4"]


def test_a_damaged_frame_leaves_no_video(root: Path, tmp_path: Path) -> None:
    episode = Dataset.open(str(root))[0]
    shard = root / f"shards/{episode.row['shard']}.tar"
    data = bytearray(shard.read_bytes())
    data[episode.row["image_0.offset"] + 2 * 32 * 32 * 3] ^= 1
    shard.write_bytes(data)
    (tmp_path / "new").mkdir()
    with pytest.raises(CorruptError, match=f"{episode.key}, camera image_0, chunk 2 does not match"):
        episode.video(tmp_path / "new" / "x.mp4")
    assert list((tmp_path / "new").iterdir()) == []


def test_without_pyav_the_error_says_what_to_install(
    windowed: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"^video: needs PyAV, which is not installed: pip install .*video"):
        Dataset.open(str(windowed["raw"]))[0].video(tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []
