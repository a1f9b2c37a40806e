"""Frames are those of the shard however they are asked for, and what is damaged is not handed out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from by_hand import members_by_hand
from oxcart.manifests.dataset import Dataset
from oxcart.manifests.frames import AT_ONCE
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from sample_compile import CAMERAS

Frames = npt.NDArray[np.uint8]


def held(root: Path, key: str, camera: str) -> Frames:
    """All frames of a camera of an episode, read with nothing of ours."""
    frames: Frames = members_by_hand(root)[key][camera]
    return frames


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg"])
def test_frames_are_those_of_the_shard(windowed: Mapping[str, Path], codec: str) -> None:
    dataset = Dataset.open(str(windowed[codec]))
    for key, members in members_by_hand(windowed[codec]).items():
        for camera, side in (("image", (12, 16)), ("hand", (8, 10))):
            whole, frames = members[camera], dataset[key].frames(camera)
            count = len(whole)
            assert frames.shape == whole.shape == (count, *side, 3)
            assert (len(frames), frames.dtype, frames.camera) == (count, np.uint8, camera)
            for step in (0, count - 1, -1, -count, np.int32(1)):
                np.testing.assert_array_equal(frames[step], whole[step])
            for some in (
                *(slice(1, None), slice(None), slice(-3, -1), slice(5, 2), slice(1, 999)),
                *(slice(None, None, 3), slice(None, None, -1), [count - 1, 0, 1, 0], [-1], np.array([0])),
            ):
                found = frames[some]
                assert found.dtype == np.uint8
                np.testing.assert_array_equal(found, whole[some])
            assert frames[[]].shape == (0, *side, 3)
            np.testing.assert_array_equal(np.stack(list(frames)), whole)
            np.testing.assert_array_equal(np.asarray(frames), whole)
            np.testing.assert_array_equal(np.asarray(frames, np.float32), whole.astype(np.float32))


def test_iteration_reads_a_few_megabytes_at_a_time(
    windowed: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (1, 12 * 16 * 3 * 5, AT_ONCE):
        monkeypatch.setattr("oxcart.manifests.frames.AT_ONCE", most)
        for codec in ("raw", "zstd", "jpeg"):
            dataset = Dataset.open(str(windowed[codec]))
            for key, members in members_by_hand(windowed[codec]).items():
                np.testing.assert_array_equal(np.stack(list(dataset[key].frames())), members["image"])


def test_a_camera_is_found_by_name_and_by_role(windowed: Mapping[str, Path]) -> None:
    episode = Dataset.open(str(windowed["raw"]))[0]
    assert [episode.frames(one).camera for one in ("hand", "wrist", "image", "primary")] == [
        *("hand", "hand", "image", "image")
    ]
    assert episode.frames().camera == "image"
    assert episode.frames("wrist") is episode.frames("hand")


def test_a_camera_or_step_that_is_not_there_is_said_in_one_line(intact: Path) -> None:
    episode = Dataset.open(str(intact))[0]
    with pytest.raises(
        ConfigError, match=r"^camera 'side': the dataset has image_0 \(primary\), wrist \(wrist\)$"
    ):
        episode.frames("side")
    frames = episode.frames("wrist")
    last = episode.steps - 1
    for step in (-episode.steps - 1, episode.steps, 10**9):
        for asked in (step, [0, step]):
            with pytest.raises(
                IndexError, match=f"^frame {step}: episode {episode.key} has frames 0 to {last}$"
            ):
                frames[asked]
    for wrong in (1.5, "x" * 999, None, (0, 1), (0, slice(2)), np.zeros((2, 2), int), {1}, [0.0], ["x"]):
        with pytest.raises(TypeError, match=r"^frames: expected a step, a slice or a list .{1,80}$"):
            frames[wrong]  # type: ignore[index]
    for mask in (True, [True, False], np.ones(last + 1, np.bool_)):
        with pytest.raises(TypeError, match=r"^frames: expected a step, a slice .* got (np\.)?True.?$"):
            frames[mask]
    with pytest.raises(ValueError, match="copy=False is impossible"):
        np.asarray(frames, copy=False)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_damaged_chunk_is_not_handed_out_and_its_neighbours_are(root: Path, camera: str) -> None:
    episode = Dataset.open(str(root))[0]
    row, frames = episode.row, episode.frames(camera)
    intact = held(root, episode.key, camera)
    size = intact[0].nbytes
    path = root / f"shards/{row['shard']}.tar"
    data = path.read_bytes()
    for place in (0, size // 2, size - 1):
        at = row[f"{camera}.offset"] + size + place
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        for steps in (1, slice(None), [2, 1, 0]):
            with pytest.raises(
                CorruptError, match=f"^{row['shard']}: {row['key']}, camera {camera}, chunk 1 does"
            ):
                frames[steps]
        np.testing.assert_array_equal(frames[[0, 2]], intact[[0, 2]])


@pytest.mark.parametrize("codec", ["zstd", "jpeg"])
def test_a_damaged_chunk_of_a_codec_names_the_episode(
    windowed: Mapping[str, Path], tmp_path: Path, codec: str
) -> None:
    root = Path(shutil.copytree(windowed[codec], tmp_path / "copy"))
    episode = Dataset.open(str(root))[0]
    path = root / f"shards/{episode.row['shard']}.tar"
    data = path.read_bytes()
    at = episode.row["image.offset"]
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(CorruptError, match=f": {episode.key}, camera image, chunk 0 does not match"):
        episode.frames()[0]


def test_a_damaged_chunk_table_is_not_believed(root: Path) -> None:
    dataset = Dataset.open(str(root))
    row = dataset[0].row
    path = root / f"shards/{row['shard']}.chunks.parquet"
    data = path.read_bytes()
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CorruptError, match=f"{row['shard']}.chunks.parquet: does not match its digest"):
            dataset[0].frames("wrist")
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        dataset[0].frames("wrist")


def test_a_shard_cut_or_gone_is_an_error(root: Path) -> None:
    episode = Dataset.open(str(root))[0]
    path = root / f"shards/{episode.row['shard']}.tar"
    path.write_bytes(path.read_bytes()[: episode.row["wrist.offset"] + 100])
    with pytest.raises(StoreError, match="ends at byte"):
        episode.frames("wrist")[0]
    assert episode.frames("image_0")[0].shape == (32, 32, 3)
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        Dataset.open(str(root))[0].frames("image_0")[0]


def test_frames_of_many_shards_keep_few_files_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oxcart.manifests.dataset.KEPT_SHARDS", 1)
    dataset = Dataset.open(str(root))
    assert len(dataset.manifest.shards) == 3
    before = len(os.listdir("/proc/self/fd"))
    kept = [episode.frames() for episode in dataset]
    first = [frames[0] for frames in kept]
    assert len(os.listdir("/proc/self/fd")) == before + 1
    np.testing.assert_array_equal(first, [frames[0] for frames in kept])


@pytest.mark.parametrize("change", [{"key": "moon"}, {"shard": "train-00009"}, {"steps": 99}])
def test_a_row_of_another_dataset_gets_no_frames(intact: Path, change: dict[str, Any]) -> None:
    episode = Dataset.open(str(intact))[0]
    with pytest.raises(CorruptError, match=r"has no digest for each chunk|is not in the manifest"):
        replace(episode, row={**episode.row, **change}).frames("wrist")
