"""The episodes of a split: which they are, what of them stays in memory, and how they are read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broken_dataset import seal
from oxcart.manifests.dataset import Dataset, read_whole
from oxcart.manifests.tables import EPISODES
from oxcart.shards.errors import CorruptError
from oxcart.shards.store import Store
from oxcart.train.data.index import SplitIndex, Texts
from oxcart.train.data.selection import Selection
from sample_compile import CAMERAS, Compiled, rows_of

READ = """
import sys
import numpy as np
from oxcart.manifests.dataset import Dataset
from oxcart.train.data.index import SplitIndex

index = SplitIndex(Dataset.open(sys.argv[1]), "train", cameras=["image_0"], arrays=("action", "state"))
index.keys_at(np.arange(len(index)))
index.cameras["image_0"].chunks(0)
print("pandas" in sys.modules)
"""


@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_episodes_of_a_split_are_its_rows_of_the_table(
    six_episodes: Compiled, split: str, limit: int | None
) -> None:
    index = SplitIndex(
        Dataset.open(str(six_episodes.out)), split, CAMERAS, Selection(limit=limit), ("action", "state"), True
    )
    rows = [row for row in rows_of(six_episodes.out) if row["split"] == split][:limit]
    assert len(index) == len(rows) > 0
    everything = np.arange(len(index))
    assert index.acts is not None
    found = {
        "key": index.keys_at(everything),
        "steps": index.steps.tolist(),
        "environment": index.texts["environment"].at(everything),
        "instruction": index.texts["instruction"].at(everything),
        "action.offset": index.arrays["action"].offsets.tolist(),
        "state.digest": index.arrays["state"].digests.tolist(),
        "action.start": index.acts[:, 0].tolist(),
        "action.stop": index.acts[:, 1].tolist(),
        "json.digest": index.metadata[1].tolist(),
        "wrist.offset": index.cameras["wrist"].offsets.tolist(),
        "wrist.height": index.cameras["wrist"].sizes[:, 0].tolist(),
    }
    for name, values in found.items():
        assert values == [row[name] for row in rows], name
    shards = [index.shard_name(shard) for shard in index.shards.tolist()]
    assert shards == [f"shards/{row['shard']}.tar" for row in rows]


def test_a_few_rows_of_a_table_do_not_keep_the_others_in_memory(
    six_episodes: Compiled, tmp_path: Path
) -> None:
    shutil.copytree(six_episodes.out, tmp_path / "x")
    table = pq.read_table(tmp_path / "x" / EPISODES)
    long = pa.array([key.as_py() + "x" * 1_000_000 for key in table["key"]])
    pq.write_table(table.set_column(0, "key", long), tmp_path / "x" / EPISODES)
    seal(tmp_path / "x")
    index = SplitIndex(Dataset.open(str(tmp_path / "x")), "train", selection=Selection(limit=1))
    held = sum(buffer.size for buffer in index.keys.buffers() if buffer is not None)
    assert 1_000_000 < held < 1_100_000
    assert index.nbytes > 1_000_000


def test_a_split_in_two_places_of_the_table_is_corrupt(six_episodes: Compiled, tmp_path: Path) -> None:
    shutil.copytree(six_episodes.out, tmp_path / "x")
    table = pq.read_table(tmp_path / "x" / EPISODES)
    splits = table["split"].to_pylist()
    assert splits[0] != splits[-1]
    pq.write_table(table.take([len(splits) - 1, *range(len(splits) - 1)]), tmp_path / "x" / EPISODES)
    seal(tmp_path / "x")
    SplitIndex(Dataset.open(str(tmp_path / "x")), splits[0])
    with pytest.raises(CorruptError, match=r"episodes.parquet: episodes of one split are not in consecutive"):
        SplitIndex(Dataset.open(str(tmp_path / "x")), splits[-1])


def test_a_chunk_table_is_read_once_for_all_cameras(six_episodes: Compiled) -> None:
    read: Counter[str] = Counter()

    def counting(store: Store, name: str, digest: str) -> bytes:
        read[name] += 1
        return read_whole(store, name, digest)

    dataset = Dataset.open(str(six_episodes.out))
    index = SplitIndex(dataset, "train", [*CAMERAS, "primary"], read=counting)
    for shard in sorted(set(index.shards.tolist())):
        tables = [camera.chunks(shard) for camera in index.cameras.values()]
        alone = [SplitIndex(dataset, "train", [name]).cameras[name].chunks(shard) for name in index.cameras]
        for one, other in zip(tables, alone, strict=True):
            assert one.offsets.tolist() == other.offsets.tolist()
            assert one.digests.tolist() == other.digests.tolist()
        assert tables[0].offsets.tolist() != tables[1].offsets.tolist()
    assert set(read.values()) == {1}


def test_texts_may_be_missing_and_coded_in_any_way() -> None:
    values = ["a", None, "b", "a", None]
    plain = pa.chunked_array([values[:2], values[2:]], pa.string())
    none = pa.chunked_array([[None, None]], pa.string())
    for column in (plain, plain.dictionary_encode(), plain.slice(0, 5)):
        texts = Texts.of(column)
        assert texts.at(np.arange(5)) == values
        assert texts.equal("a").tolist() == [True, False, False, True, False]
        assert not texts.equal("c").any()
    assert Texts.of(none).at(np.arange(2)) == [None, None]
    assert Texts.of(plain.slice(0, 0)).at(np.arange(0)) == []


def test_reading_episodes_does_not_import_pandas(datasets: Mapping[str, Path]) -> None:
    """Arrow's conversions would, where it is installed; that takes longer than to read a million episodes."""
    run = subprocess.run(
        [sys.executable, "-c", READ, str(datasets["raw"])], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"
