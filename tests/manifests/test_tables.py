"""Tables are written the same every time, read back whole, and their damage is one line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oxcart.manifests.tables import (
    CHUNKS_SCHEMA,
    REJECTED_SCHEMA,
    ROW_GROUP,
    VALUES_SCHEMA,
    conforming,
    episodes_schema,
    parse_table,
    read_table,
    table_bytes,
)
from oxcart.shards.errors import CorruptError, StoreError
from oxcart.shards.store import Store


def one_line(error: Exception) -> None:
    """A message must be one line."""
    assert len(str(error).splitlines()) == 1


def chunks(count: int = 20) -> pa.Table:
    rows = [
        {"key": f"k{i}", "camera": "image", "digests": [2**64 - 1 - i, i], "sizes": [i, 2**32 - 1]}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, CHUNKS_SCHEMA)


@pytest.mark.parametrize(
    "schema", [CHUNKS_SCHEMA, REJECTED_SCHEMA, VALUES_SCHEMA, episodes_schema(["a", "b"])]
)
def test_a_table_without_rows_keeps_its_columns(schema: pa.Schema) -> None:
    table = parse_table(table_bytes(pa.Table.from_pylist([], schema)), "t")
    assert table.num_rows == 0
    assert table.schema.equals(schema)


def test_a_table_is_read_back_whole() -> None:
    assert parse_table(table_bytes(chunks()), "t").equals(chunks())
    nothing = pa.Table.from_pylist([{}], episodes_schema(["a"]))
    assert parse_table(table_bytes(nothing), "t").equals(nothing)


def test_metadata_is_kept() -> None:
    table = chunks().replace_schema_metadata({b"oxcart.x": b'{"a": 1}'})
    assert parse_table(table_bytes(table), "t").schema.metadata == {b"oxcart.x": b'{"a": 1}'}


def test_equal_tables_give_equal_bytes_however_they_are_cut_in_memory() -> None:
    whole = chunks(1000)
    pieces = pa.concat_tables([whole.slice(i, 7) for i in range(0, 1000, 7)])
    assert len(pieces["key"].chunks) > 100
    assert table_bytes(whole) == table_bytes(chunks(1000)) == table_bytes(pieces)


def test_row_groups_have_the_size_that_the_format_says() -> None:
    table = pa.table({"steps": pa.array(range(ROW_GROUP + 5), pa.int32())})
    file = pq.ParquetFile(pa.BufferReader(table_bytes(table)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROW_GROUP, 5]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_episodes_have_three_columns_for_each_camera() -> None:
    base, two = episodes_schema([]).names, episodes_schema(["b", "a"]).names
    cameras = [f"{camera}.{what}" for camera in ("b", "a") for what in ("offset", "height", "width")]
    assert two == base + cameras
    assert len(set(two)) == len(two)


def test_some_columns_are_read_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("t.parquet", table_bytes(chunks()))
    found = read_table(store, "t.parquet", ["camera", "key"])
    assert found.column_names == ["camera", "key"]
    assert found["key"].to_pylist() == [f"k{i}" for i in range(20)]
    assert read_table(store, "t.parquet").equals(chunks())
    assert read_table(store, "t.parquet", []).column_names == []


def test_a_column_that_is_not_there_is_corrupt_and_a_table_that_is_not_there_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("t.parquet", table_bytes(chunks()))
    with pytest.raises(CorruptError, match=r"^t.parquet: .*none") as caught:
        read_table(store, "t.parquet", ["key", "none"])
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(StoreError, match="No such file"):
        read_table(store, "none.parquet")


@pytest.mark.parametrize("steps", [[1 << 20, 1], [1 << 20, 8]])
def test_frames_of_an_episode_that_fill_no_member_are_corrupt(steps: list[int]) -> None:
    columns = ["steps", "c.height", "c.width"]
    schema = pa.schema([episodes_schema(["c"]).field(name) for name in columns])
    table = pa.table([steps, [1, 1 << 15], [1, 1 << 14]], schema=schema)
    if steps[1] == 1:  # many steps and large frames, but not in one episode
        assert conforming(table, episodes_schema(["c"]), "t", columns) is table
        return
    with pytest.raises(CorruptError, match="t: frames of camera c are more than an episode can have"):
        conforming(table, episodes_schema(["c"]), "t", columns)


@pytest.mark.parametrize("columns", [None, ["key"]])
def test_two_columns_of_one_name_are_corrupt(columns: list[str] | None) -> None:
    data = table_bytes(pa.table([["a"], ["b"]], names=["key", "key"]))
    with pytest.raises(CorruptError, match="it has 2 columns 'key', expected one"):
        parse_table(data, "t", columns)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", bytes(500), b"key,camera\n1,2\n"], ids=repr)
def test_what_is_no_parquet_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^t.parquet: not a readable Parquet table: ") as caught:
        parse_table(data, "t.parquet")
    assert len(str(caught.value).splitlines()) == 1


def test_a_table_cut_anywhere_is_corrupt() -> None:
    data = table_bytes(chunks())
    for length in range(len(data)):
        with pytest.raises(CorruptError) as caught:
            parse_table(data[:length], "t")
        assert len(str(caught.value).splitlines()) == 1


def test_no_flipped_byte_is_more_than_corrupt() -> None:
    """A table that can still be read may be wrong: its digest stands in the manifest."""
    data, errors = table_bytes(chunks()), 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            parse_table(bytes(damaged), "t")
        except CorruptError as error:
            errors += 1
            one_line(error)
    assert errors > len(data) / 2
