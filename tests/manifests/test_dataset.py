"""What a dataset hands out is what the files hold, and what is damaged is not handed out."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from by_hand import members_by_hand
from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import ConfigError, CorruptError, StoreError
from sample_compile import CAMERAS
from servers import Server


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
            dataset[0]
    (root / "episodes.parquet").unlink()
    with pytest.raises(StoreError, match=r"episodes\.parquet: read: No such file"):
        dataset.table("episodes.parquet")


def test_a_column_that_is_not_there_is_no_table(intact: Path) -> None:
    with pytest.raises(CorruptError, match=r"episodes\.parquet: not a readable Parquet table: .*moon"):
        Dataset.open(str(intact)).table("episodes.parquet", ["key", "moon"])


def test_an_episode_by_key_by_index_and_in_turn(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    rows = pq.read_table(intact / "episodes.parquet").to_pylist()
    assert len(dataset) == len(rows) == 6
    assert [episode.row for episode in dataset] == rows
    for i, row in enumerate(rows):
        assert dataset[row["key"]].row == dataset[i].row == dataset[np.int64(i - 6)].row == row
        assert row["key"] in dataset
    for some in (slice(1, 4), slice(None, None, -2), slice(9, 99)):
        assert [episode.row for episode in dataset[some]] == rows[some]
    assert "moon" not in dataset
    assert 0 not in dataset
    assert [episode.key for episode in reversed(dataset)] == [row["key"] for row in reversed(rows)]


def test_an_index_that_is_not_there_is_an_index_error(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    for index in (6, -7, 10**9):
        with pytest.raises(IndexError, match=f"^episode {index}: the dataset has 6, numbered from 0$"):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[1.0]  # type: ignore[call-overload]


def test_nothing_is_read_before_it_is_needed_and_nothing_twice(root: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(str(root))
    table = (root / "episodes.parquet").rename(tmp_path / "table")
    assert len(dataset) == 6
    assert "6 episodes" in repr(dataset)
    table.rename(root / "episodes.parquet")
    first = dataset[0]
    (root / "episodes.parquet").unlink()
    assert dataset[1].key != first.key == dataset.episodes["key"][0].as_py()
    chunks = (root / f"shards/{first.row['shard']}.chunks.parquet").rename(tmp_path / "chunks")
    assert first.action is not None
    chunks.rename(root / f"shards/{first.row['shard']}.chunks.parquet")
    frames = first.frames()
    (root / f"shards/{first.row['shard']}.chunks.parquet").unlink()
    assert frames[0].shape == (32, 32, 3)
    assert dataset[first.key].frames("wrist")[0].shape == (16, 16, 3)


def test_a_dataset_and_its_episodes_can_be_sent_to_another_process(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    episode = dataset[2]
    frame = episode.frames("wrist")[1]
    sent = pickle.loads(pickle.dumps((dataset, episode, episode.frames("wrist"))))  # noqa: S301  just dumped
    assert sent[0].manifest == dataset.manifest
    assert len(pickle.dumps(dataset)) == len(pickle.dumps(Dataset.open(str(intact))))
    np.testing.assert_array_equal(sent[1].frames("wrist")[1], frame)
    np.testing.assert_array_equal(sent[2][1], frame)


@pytest.mark.parametrize("most", [5_000, 2])
def test_a_key_that_is_not_there_brings_the_nearest(
    intact: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("oxcart.manifests.dataset.LIKE", most)
    dataset = Dataset.open(str(intact))
    key = dataset[2].key
    for typed in (
        key[:-1],
        f"{key}x",
        key.upper().lower().replace("kitchens", "kitchen"),
        key.replace("-", "_", 1),
    ):
        with pytest.raises(
            ConfigError, match=f"^episode '{typed}': the dataset has no such key; did you mean oxcart_k"
        ):
            dataset[typed]
    with pytest.raises(ConfigError, match=f"did you mean {key}[?] oxcart inspect"):
        dataset[f"{key} "]
    for typed in ("", "?", "zzz"):
        with pytest.raises(ConfigError, match=r"no such key; oxcart inspect --episodes lists all of them$"):
            dataset[typed]


def test_what_an_episode_says_is_what_its_row_and_its_members_hold(windowed: Mapping[str, Path]) -> None:
    for codec in ("raw", "zstd", "jpeg", "legged"):
        dataset = Dataset.open(str(windowed[codec]))
        by_hand = members_by_hand(windowed[codec])
        rows = {row["key"]: row for row in pq.read_table(windowed[codec] / "episodes.parquet").to_pylist()}
        assert [episode.key for episode in dataset] == list(by_hand)
        for episode in dataset:
            held, row = by_hand[episode.key], rows[episode.key]
            assert (episode.split, episode.environment) == (row["split"], row["environment"])
            assert (episode.session, episode.success) == (row["session"], row["success"])
            assert episode.steps == len(episode) == len(held["action"])
            assert episode.instruction == held["json"]["instruction"]
            said = [(one["step"], one["text"], one["field"]) for one in held["json"]["instructions"]]
            assert episode.instructions == ([] if held["json"]["instruction"] == "" else said)
            for name in ("action", "state"):
                values = getattr(episode, name)
                assert values.dtype == np.float32
                np.testing.assert_array_equal(values, held[name])
                assert values is getattr(episode, name)
                assert values.flags.writeable
            assert episode.reward is None
            assert list(episode.columns) == ["action", "state"]
            assert len(episode.columns["action"]) == held["action"].shape[1]
            assert {"json", "action", "state", *episode.cameras} == {*held}
            for camera in episode.cameras:
                np.testing.assert_array_equal(episode.frames(camera), held[camera])
    assert any(len(episode.instructions) > 1 for episode in dataset)
    assert any(episode.instructions == [] and episode.instruction == "" for episode in dataset)
    assert any(episode.environment is None for episode in Dataset.open(str(windowed["raw"])))


def test_a_reward_is_there_where_the_dataset_has_one(intact: Path) -> None:
    for episode in Dataset.open(str(intact)):
        assert episode.reward is not None
        np.testing.assert_array_equal(episode.reward, array(intact, episode.row, "reward.npy"))


def test_a_remote_episode_is_read_piece_by_piece(intact: Path, site: Server, tmp_path: Path) -> None:
    shutil.copytree(intact, tmp_path / "site" / "dataset")
    dataset, local = Dataset.open(f"{site.url}/dataset"), Dataset.open(str(intact))
    wanted = local[1]
    np.testing.assert_array_equal(dataset[1].frames("wrist")[2], wanted.frames("wrist")[2])
    np.testing.assert_array_equal(dataset[1].frames(), wanted.frames())
    np.testing.assert_array_equal(dataset[1].action, wanted.action)
    assert dataset[1].instructions == wanted.instructions
    asked = [path.rpartition("/")[2] for method, path in site.faults.requests if method == "GET"]
    assert asked.count("episodes.parquet") == asked.count(f"{wanted.row['shard']}.chunks.parquet") == 1


@pytest.mark.parametrize(
    ("what", "place"), [("action", "action.offset"), ("state", "state.offset"), ("instructions", "offset")]
)
def test_a_damaged_piece_is_not_handed_out_and_the_error_names_the_episode(
    root: Path, what: str, place: str
) -> None:
    row = Dataset.open(str(root))[2].row
    path = root / f"shards/{row['shard']}.tar"
    data = path.read_bytes()
    at = row[place] + (tarfile.BLOCKSIZE if what == "instructions" else 0) + 1
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    episode = Dataset.open(str(root))[2]
    member = {"instructions": "json"}.get(what, what)
    message = f"^{row['shard']}: {row['key']}: {member} does not match its digest$"
    for _ in range(2):
        with pytest.raises(CorruptError, match=message):
            getattr(episode, what)


def test_one_line_says_what_it_is(intact: Path) -> None:
    dataset = Dataset.open(str(intact))
    assert repr(dataset) == "Dataset(oxcart_kitchens 1.0.0: 6 episodes (train 4, val 2); image_0, wrist)"
    first = dataset[0]
    said = f"Episode({first.key}, train, {first.environment}, {first.steps} steps: {first.instruction!r})"
    assert repr(first) == said
    long = replace(first, row={**first.row, "instruction": "x\n" * 10_000, "environment": "y" * 10_000})
    for one in (dataset, first, long, first.frames()):
        assert len(repr(one)) < 300
        assert "\n" not in repr(one)
    unknown = replace(first, row={**first.row, "instruction": "", "environment": None})
    assert repr(unknown).endswith(f"unknown environment, {first.steps} steps)")
