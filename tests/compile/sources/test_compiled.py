"""A compiled dataset as a source says of its episodes what the census of its own source had said."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from oxcart.compile.sources.base import SourceConfig
from oxcart.compile.sources.compiled import CompiledSource
from oxcart.compile.transcode import TranscodeConfig, prepare
from oxcart.manifests.tables import table_bytes
from sample_compile import CAMERAS, Compiled, census_of, rows_of

NOT_KEPT = ("duplicate", "instructions", "sketch")
"""What a dataset does not keep, or not whole."""


def test_its_table_is_the_census_of_the_source(six_episodes: Compiled) -> None:
    census = census_of(six_episodes.source, cameras=CAMERAS)
    seen = {row["key"]: row for row in census.table.to_pylist()}
    source = CompiledSource(SourceConfig(url=str(six_episodes.out), kind="compiled"))
    table = source.table()
    assert table["key"].to_pylist() == [row["key"] for row in rows_of(six_episodes.out)]
    assert table.select(census.table.column_names).schema.equals(census.table.schema)
    for row in table.to_pylist():
        was = seen[row["key"]]
        assert {name: row[name] for name in was if name not in NOT_KEPT} == {
            name: value for name, value in was.items() if name not in NOT_KEPT
        }
        assert row["instructions"] == was["instructions"][:1]
    shards = [[row.key for row in source.census(name)] for name in source.files()]
    assert [key for keys in shards for key in keys] == table["key"].to_pylist()
    assert len(shards) == 3


def test_episodes_without_a_text_have_no_instruction(six_episodes: Compiled, tmp_path: Path) -> None:
    out = with_episodes(six_episodes.out, tmp_path / "out", 6, instruction=["", "a", "", "b", "c", ""])
    table = CompiledSource(SourceConfig(url=str(out), kind="compiled")).table()
    assert table["instructions"].to_pylist() == [[], ["a"], [], ["b"], ["c"], []]


def test_many_episodes_are_planned_without_an_object_for_each(six_episodes: Compiled, tmp_path: Path) -> None:
    episodes = 20_000
    out = with_episodes(six_episodes.out, tmp_path / "out", episodes)
    config = TranscodeConfig(dataset=str(out), out=str(tmp_path / "zstd"), codec="zstd", workers=1)
    tracemalloc.start()
    try:
        prepared = prepare(config)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert prepared.census.table.num_rows == episodes
    assert peak < 500 * episodes


def with_episodes(dataset: Path, out: Path, number: int, **columns: list[str]) -> Path:
    """A copy of a dataset whose table has so many episodes, again and again those of the dataset."""
    rows = pq.read_table(dataset / "episodes.parquet")
    table = pa.concat_tables([rows] * -(-number // rows.num_rows)).slice(0, number)
    columns = {"key": [f"kitchens-train-00000-{i:06d}" for i in range(number)], **columns}
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    data = table_bytes(table)
    manifest = json.loads((dataset / "manifest.json").read_bytes())
    manifest["tables"]["episodes.parquet"] |= {"bytes": len(data), "blake3": blake3(data).hexdigest()}
    shutil.copytree(dataset, out)
    (out / "episodes.parquet").write_bytes(data)
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out
