"""Actions and states of many samples at once, beside what tarfile and NumPy read."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from oxcart.manifests.dataset import Dataset
from oxcart.shards.errors import CorruptError
from oxcart.train.data import reader
from oxcart.train.data.index import SplitIndex
from oxcart.train.data.reader import EpisodeReader
from oxcart.train.data.recent import ENTRY_BYTES
from sample_compile import rows_of

NAMES = ("action", "state")
Floats = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def arrays_by_hand(dataset: Path) -> dict[str, Floats]:
    """Member, such as `KEY.action.npy` -> its values [T, A]."""
    found = {}
    for shard in dataset.glob("shards/*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith((".action.npy", ".state.npy")):
                    found[member.name] = np.load(io.BytesIO(tar.extractfile(member).read()))  # type: ignore[union-attr]
    return found


def opened(dataset: Path) -> EpisodeReader:
    return EpisodeReader(SplitIndex(Dataset.open(str(dataset)), "train", arrays=NAMES))


def draw(index: SplitIndex, count: int, each: int, seed: int = 0) -> tuple[Int64, Int64]:
    """Episodes [count] and steps [count, each] in them, in no order."""
    random = np.random.default_rng(seed)
    episodes = random.integers(len(index), size=count)
    return episodes, random.integers(index.steps[episodes][:, None], size=(count, each))


def expected(index: SplitIndex, by_hand: Mapping[str, Floats], name: str, at: tuple[Int64, Int64]) -> Floats:
    keys = index.keys_at(at[0])
    return np.stack([by_hand[f"{key}.{name}.npy"][mine] for key, mine in zip(keys, at[1], strict=True)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("count", "each"), [(1, 1), (1, 5), (200, 1), (200, 5)])
def test_gathered_values_are_those_of_the_shards(
    datasets: Mapping[str, Path], name: str, count: int, each: int
) -> None:
    episodes = opened(datasets["raw"])
    at = draw(episodes.index, count, each)
    wanted = expected(episodes.index, arrays_by_hand(datasets["raw"]), name, at)
    for _ in range(2):  # from the shards, then from memory
        found = episodes.gather(name, *at)
        assert (found.dtype, found.shape) == (np.float32, (count, each, wanted.shape[-1]))
        assert np.array_equal(found, wanted)
        found[:] = -1  # what a caller does with its samples changes no others


def test_a_step_outside_its_episode_is_refused(datasets: Mapping[str, Path]) -> None:
    episodes = opened(datasets["raw"])
    for step in (-1, int(episodes.index.steps[0])):
        with pytest.raises(IndexError, match="action: a step lies outside its episode"):
            episodes.gather("action", np.array([1, 0]), np.array([[0, 1], [0, step]]))


def test_more_arrays_than_fit_stay_within_the_limit(
    datasets: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2 * (9 * 3 * 4 + ENTRY_BYTES)
    monkeypatch.setattr(reader, "ARRAY_BYTES", limit)
    episodes = opened(datasets["raw"])
    assert len(episodes.index) > 2 * 2
    by_hand = arrays_by_hand(datasets["raw"])
    for seed in range(5):
        at = draw(episodes.index, 30, 2, seed)
        for name in NAMES:
            assert np.array_equal(episodes.gather(name, *at), expected(episodes.index, by_hand, name, at))
            assert 0 < episodes._arrays.nbytes <= limit


def test_threads_gather_parts_of_one_batch_at_once(
    datasets: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ARRAY_BYTES", 6 * ENTRY_BYTES)
    episodes = opened(datasets["raw"])
    by_hand = arrays_by_hand(datasets["raw"])
    with ThreadPoolExecutor(4) as pool:
        for seed in range(5):
            at = draw(episodes.index, 64, 3, seed)
            parts = [
                (name, at[0][begin : begin + 16], at[1][begin : begin + 16])
                for begin in range(0, 64, 16)
                for name in NAMES
            ]
            for found, (name, *own) in zip(
                pool.map(lambda one: episodes.gather(*one), parts), parts, strict=True
            ):
                assert np.array_equal(found, expected(episodes.index, by_hand, name, (own[0], own[1])))


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_of_an_array_names_shard_key_and_array(
    datasets: Mapping[str, Path], tmp_path: Path, name: str
) -> None:
    shutil.copytree(datasets["raw"], tmp_path / "x")
    row = next(row for row in rows_of(tmp_path / "x") if row["split"] == "train")
    shard = tmp_path / "x" / "shards" / f"{row['shard']}.tar"
    data = bytearray(shard.read_bytes())
    data[row[f"{name}.offset"] + 5] ^= 4
    shard.write_bytes(data)
    episodes = opened(tmp_path / "x")
    whole = np.array([1]), np.array([[0]])
    assert episodes.gather(name, *whole).shape[0] == 1
    for _ in range(2):
        with pytest.raises(CorruptError) as caught:
            episodes.gather(name, np.array([1, 0]), np.array([[0], [0]]))
        assert str(caught.value) == f"shards/{shard.name}: {row['key']}: {name} does not match its digest"


def test_keys_and_texts_of_many_episodes_are_those_of_each(datasets: Mapping[str, Path]) -> None:
    index = opened(datasets["raw"]).index
    rows = [row for row in rows_of(datasets["raw"]) if row["split"] == "train"]
    episodes = np.array([2, 0, 2, len(index) - 1])
    for name, found in (
        ("key", index.keys_at(episodes)),
        ("environment", index.texts["environment"].at(episodes)),
        ("instruction", index.texts["instruction"].at(episodes)),
    ):
        assert found == [rows[i][name] for i in episodes.tolist()]
    assert index.keys_at(episodes[:0]) == []
