"""What a dataset hands out is what the files hold, and what is damaged is not handed out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from sample_compile import CAMERAS


def array(root: Path, row: dict[str, Any], suffix: str) -> npt.NDArray[Any]:
    """A member of an episode, read with nothing of ours."""
    with tarfile.open(root / f"shards/{row['shard']}.tar") as tar:
        member = tar.extractfile(f"{row['key']}.{suffix}")
        assert member is not None
        loaded: npt.NDArray[Any] = np.load(io.BytesIO(member.read()), allow_pickle=False)
        return loaded


def test_open_reads_the_manifest(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    assert dataset.store.url == str(intact)
    assert dataset.manifest.dataset["name"] == "oxcart_kitchens"
    assert [camera["name"] for camera in dataset.manifest.cameras] == list(CAMERAS)


def test_open_refuses_what_is_no_dataset(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="not a compiled dataset"):
            Dataset.open(str(where))
    with pytest.raises(ConfigError, match="expected a directory"):
        Dataset.open("hdfs://host/dataset")


def test_a_table_is_the_file(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    assert dataset.table("episodes.parquet").equals(pq.read_table(intact / "episodes.parquet"))
    assert dataset.table("rejected.parquet").num_rows == 0
    some = dataset.table("episodes.parquet", ["steps", "key"])
    assert some.column_names == ["steps", "key"]
    assert some["key"].equals(dataset.table("episodes.parquet")["key"])


def test_a_damaged_table_is_not_read(root: Path) -> None:
    data = (root / "episodes.parquet").read_bytes()
    dataset = Dataset.open(str(root))
    for other in (data[:-1], data + b"x", data[:100] + b"x" + data[101:], b""):
        (root / "episodes.parquet").write_bytes(other)
        with pytest.raises(CorruptError, match=f"^{root}/episodes.parquet: does not match its digest"):
            dataset.table("episodes.parquet", ["key"])
        with pytest.raises(CorruptError):
            dataset.episode(None)
    (root / "episodes.parquet").unlink()
    with pytest.raises(StoreError, match=r"episodes\.parquet: read: No such file"):
        dataset.table("episodes.parquet")


def test_a_column_that_is_not_there_is_no_table(intact: Path) -> None:
    with pytest.raises(CorruptError, match=r"episodes\.parquet: not a readable Parquet table: .*moon"):
        Dataset.open(str(intact)).table("episodes.parquet", ["key", "moon"])


def test_an_episode_by_key_and_the_first_of_val_without_one(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    rows = pq.read_table(intact / "episodes.parquet").to_pylist()
    assert len(rows) == 6
    for row in rows:
        assert dataset.episode(row["key"]) == row
    first = next(row for row in rows if row["split"] == "val")
    assert dataset.episode(None) == first != rows[0]


def test_without_val_it_is_the_first_of_train(root: Path) -> None:
    table = pq.read_table(root / "episodes.parquet")
    train = table.filter(pa.compute.equal(table["split"], "train"))
    pq.write_table(train, root / "episodes.parquet")
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["tables"]["episodes.parquet"]["blake3"] = blake3(
        (root / "episodes.parquet").read_bytes()
    ).hexdigest()
    (root / "manifest.json").write_text(json.dumps(manifest))
    assert Dataset.open(str(root)).episode(None) == train.to_pylist()[0]


def test_a_key_that_is_not_there_brings_the_nearest(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    key = dataset.episode(None)["key"]
    for typed in (
        key[:-1],
        f"{key}x",
        key.upper().lower().replace("kitchens", "kitchen"),
        key.replace("-", "_", 1),
    ):
        with pytest.raises(
            ConfigError, match=f"^episode '{typed}': the dataset has no such key; did you mean oxcart_k"
        ):
            dataset.episode(typed)
    with pytest.raises(ConfigError, match=f"did you mean {key}[?] oxcart inspect"):
        dataset.episode(f"{key} ")
    for typed in ("", "?", "zzz"):
        with pytest.raises(ConfigError, match=r"no such key; oxcart inspect --episodes lists all of them$"):
            dataset.episode(typed)


def test_frames_are_those_of_the_shard(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    for row in pq.read_table(intact / "episodes.parquet").to_pylist():
        for camera, side in zip(CAMERAS, (32, 16), strict=True):
            whole = array(intact, row, f"{camera}.npy")
            assert whole.shape == (row["steps"], side, side, 3)
            assert whole.dtype == np.uint8
            last = row["steps"] - 1
            for steps in (list(range(row["steps"])), [last, 0, 1, 0], [last], []):
                frames = dataset.frames(row, camera, steps)
                assert frames.dtype == np.uint8
                np.testing.assert_array_equal(frames, whole[steps] if steps else whole[:0])


def test_the_primary_camera_is_the_first(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    row = dataset.episode(None)
    np.testing.assert_array_equal(dataset.frames(row, "primary", [1]), dataset.frames(row, "image_0", [1]))


def test_a_camera_or_step_that_is_not_there_is_the_users_mistake(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    row = dataset.episode(None)
    with pytest.raises(
        ConfigError, match=r"camera 'side': the dataset has image_0 \(primary\), wrist \(wrist\)$"
    ):
        dataset.frames(row, "side", [0])
    for step in (-1, row["steps"], 10**9):
        with pytest.raises(
            ConfigError, match=f"step {step}: episode {row['key']} has steps 0 to {row['steps'] - 1}"
        ):
            dataset.frames(row, "wrist", [0, step])


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_damaged_chunk_is_not_handed_out_and_its_neighbours_are(root: Path, camera: str) -> None:
    dataset = Dataset.open(str(root))
    row = dataset.episode(None)
    intact = array(root, row, f"{camera}.npy")
    size = intact[0].nbytes
    path = root / f"shards/{row['shard']}.tar"
    data = path.read_bytes()
    for place in (0, size // 2, size - 1):
        at = row[f"{camera}.offset"] + size + place
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        for steps in ([1], [0, 1], [2, 1, 0]):
            with pytest.raises(
                CorruptError, match=f"{row['shard']}: {row['key']}, camera {camera}, chunk 1 does"
            ):
                dataset.frames(row, camera, steps)
        np.testing.assert_array_equal(dataset.frames(row, camera, [0, 2]), intact[[0, 2]])


def test_a_damaged_chunk_table_is_not_believed(root: Path) -> None:
    dataset = Dataset.open(str(root))
    row = dataset.episode(None)
    path = root / f"shards/{row['shard']}.chunks.parquet"
    data = path.read_bytes()
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CorruptError, match=f"{row['shard']}.chunks.parquet: does not match its digest"):
            dataset.frames(row, "wrist", [0])
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        dataset.frames(row, "wrist", [0])


def test_a_shard_cut_or_gone_is_an_error(root: Path) -> None:
    dataset = Dataset.open(str(root))
    row = dataset.episode(None)
    path = root / f"shards/{row['shard']}.tar"
    path.write_bytes(path.read_bytes()[: row["wrist.offset"] + 100])
    with pytest.raises(StoreError, match="ends at byte"):
        dataset.frames(row, "wrist", [0])
    assert dataset.frames(row, "image_0", [0]).shape == (1, 32, 32, 3)
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        dataset.frames(row, "image_0", [0])


@pytest.mark.parametrize("change", [{"key": "moon"}, {"shard": "train-00009"}, {"steps": 99}])
def test_a_row_of_another_dataset_gets_no_frames(intact: Path, change: dict[str, Any]) -> None:
    dataset = Dataset.open(str(intact))
    with pytest.raises(CorruptError, match=r"has no digest for each chunk|is not in the manifest"):
        dataset.frames({**dataset.episode(None), **change}, "wrist", [0])
