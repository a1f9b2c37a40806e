"""What a Parquet file takes is known before it is decoded, and no file takes more than was said."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oxcart.manifests import parquet, tables
from oxcart.manifests.parquet import spelled_out, weigh
from oxcart.manifests.tables import FREE_ROWS, parse_table
from oxcart.shards.errors import CorruptError


def file(table: pa.Table, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **how)
    return buffer.getvalue()


def decoded(data: bytes, texts: tuple[str, ...]) -> pa.Table:
    return pq.read_table(pa.BufferReader(data), read_dictionary=list(texts) or None)


def mixed(rows: int = 500) -> pa.Table:
    lists = [[i, i + 1] if i % 3 else [] for i in range(rows)]
    return pa.table(
        {
            "text": [f"a text, the {i % 7}th" for i in range(rows)],
            "unique": [f"{i:08d}" for i in range(rows)],
            "none": pa.array([None] * rows, pa.string()),
            "small": pa.array(range(rows), pa.int32()),
            "large": pa.array([None if i % 5 else i for i in range(rows)], pa.int64()),
            "numbers": pa.array(lists, pa.list_(pa.uint64())),
            "pairs": pa.array(
                [[[1.0, 2.0]] * (i % 4) for i in range(rows)], pa.list_(pa.list_(pa.float32(), 2))
            ),
            "texts": pa.array([["x", "y"][: i % 3] for i in range(rows)], pa.list_(pa.string())),
            "truth": [i % 2 == 0 for i in range(rows)],
        }
    )


def ways() -> Iterator[dict[str, Any]]:
    for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        yield {"compression": compression}
    for version in ("1.0", "2.0"):
        yield {"data_page_version": version, "data_page_size": 100, "write_batch_size": 10}
    yield {"use_dictionary": False}
    yield {"row_group_size": 64}
    yield {"write_statistics": False, "write_page_checksum": True}
    yield {"write_page_index": True}


@pytest.mark.parametrize("how", list(ways()), ids=str)
def test_what_a_file_takes_is_no_less_than_it_does_and_not_twice_as_much(how: dict[str, Any]) -> None:
    data = file(mixed(), **how)
    weight = weigh(data)
    assert weight.rows == 500
    assert weight.texts == ("text", "unique", "none", "texts.list.element")
    assert decoded(data, weight.texts).nbytes <= 1.1 * weight.nbytes <= 100_000
    assert parse_table(data, "t").equals(mixed())
    alone = weigh(data, ["small"])
    assert 4 * 500 <= alone.nbytes <= 4 * 500 * 3


def test_columns_that_arrow_selects_by_a_part_of_their_name_are_weighed_and_left_out() -> None:
    """A forged file may have them beside those that are read, or in place of them."""
    long = pa.array(range(500), pa.int64())
    columns = {"n.size": long, "n": pa.array([1] * 500, pa.int8())}
    for extra in ({"n.size.x": long}, {"n.y": long}, {"m": pa.StructArray.from_arrays([long], ["n"])}):
        data = file(pa.table({**columns, **extra}))
        for name in ("n", "n.size", "m.n"):
            taken = pq.ParquetFile(pa.BufferReader(data)).read([name]).nbytes
            assert taken <= weigh(data, [name]).nbytes
        assert parse_table(data, "t", ["n"]).equals(pa.table(columns).select(["n"]))
    with pytest.raises(CorruptError, match=r"^t: not a readable Parquet table: it has 0 columns 'm\.n'"):
        parse_table(data, "t", ["n", "m.n"])


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_nothing_weighs_nothing(rows: int) -> None:
    assert weigh(file(mixed().slice(0, rows))).nbytes < 1000
    assert parse_table(file(mixed().slice(0, rows)), "t").equals(mixed().slice(0, rows))
    assert weigh(file(pa.table({}))).texts == ()


def test_a_file_with_a_byte_changed_is_refused_or_takes_no_more_than_was_said() -> None:
    """Every page and every number of the footer may lie."""
    data = file(mixed(12).select(["text", "large", "numbers"]), use_dictionary=["text"], compression="none")
    refused = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        try:
            weight = weigh(bytes(damaged))
        except ValueError:
            refused += 1
            continue
        try:
            assert decoded(bytes(damaged), weight.texts).nbytes <= 1.1 * weight.nbytes + 1000
        except (pa.ArrowException, OSError, ValueError):
            continue
    assert refused > len(data) / 8


def repeated(value: Any, rows: int, kind: pa.DataType) -> pa.Array:
    """A value many times, as a dictionary: a few bytes of a file."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value], kind))


def test_a_text_that_is_repeated_is_refused_before_it_is_spelled_out() -> None:
    text = repeated("x" * 1_000_000, FREE_ROWS, pa.string())
    data = file(pa.table({"key": text}), store_schema=False)
    assert len(data) < 200_000
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(CorruptError, match="would take 4,09"):
        parse_table(data, "t")
    assert pa.default_memory_pool().max_memory() <= max(before, pa.total_allocated_bytes() + (32 << 20))
    coded = parse_table(data, "t", coded=["key"])
    assert coded.nbytes < 2_000_000
    nested = pa.ListArray.from_arrays(pa.array([0, FREE_ROWS], pa.int32()), text)
    with pytest.raises(CorruptError, match="would take"):
        parse_table(file(pa.table({"value": nested}), store_schema=False), "t")


def test_rows_that_a_file_cannot_hold_are_refused() -> None:
    data = file(pa.table({"n": pa.array([1] * 100_000, pa.int64())}))
    with pytest.raises(CorruptError, match=r"100,000 rows in [\d,]+ bytes, which cannot all differ"):
        parse_table(data, "t")


def test_a_table_takes_what_its_rows_account_for() -> None:
    data = file(pa.table({"key": ["x" * (40 << 20)]}), compression="zstd", write_statistics=False)
    assert len(data) < 100_000
    with pytest.raises(CorruptError, match=r"would take 41,9.* more than the 33,5"):
        parse_table(data, "t", most=33_500_000)
    assert parse_table(data, "t").num_rows == 1


def test_lists_are_weighed_by_what_they_hold() -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, 5_000_000], pa.int32()), pa.nulls(5_000_000, pa.uint64()))
    data = file(pa.table({"digests": lists}))
    assert len(data) < 10_000
    with pytest.raises(CorruptError, match="would take 60,0"):
        parse_table(data, "t", most=33_500_000)


@pytest.mark.parametrize("how", list(ways()), ids=str)
def test_texts_take_no_more_than_was_said_when_they_are_spelled_out(how: dict[str, Any]) -> None:
    table = mixed().select(["text", "unique", "none", "texts"])
    data = file(table, **how)
    said = spelled_out(data, weigh(data).parts, 10_000)
    held = {path: table[path.partition(".")[0]].combine_chunks() for path in weigh(data).texts}
    values = {path: one.flatten() if path.startswith("texts.") else one for path, one in held.items()}
    assert set(said) == set(values)
    for path, nbytes in said.items():
        assert nbytes >= values[path].nbytes - len(values[path]) // 8 - 64  # the bits of nulls


@pytest.mark.parametrize("repeated", [True, False])
def test_only_texts_that_may_unfold_are_read_as_dictionaries(
    repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ["x" * 10_000] * 1000 if repeated else [f"{i:010000d}" for i in range(1000)]
    data = file(pa.table({"key": [f"{i:08d}" for i in range(1000)], "text": long}), compression="zstd")
    asked = []

    def reading(source: Any, *, read_dictionary: list[str] | None, **how: Any) -> pq.ParquetFile:
        asked.append(read_dictionary)
        return pq.ParquetFile(source, read_dictionary=read_dictionary, **how)

    monkeypatch.setattr(tables, "pq", SimpleNamespace(ParquetFile=reading))
    with contextlib.suppress(CorruptError):
        parse_table(data, "t", most=5_000_000 if repeated else 25_000_000)
    assert asked == [["text"] if repeated else None]


def test_a_dictionary_that_says_less_than_it_holds_is_not_believed() -> None:
    data = file(pa.table({"text": ["a", "b" * 50, "a"]}), compression="none")
    (part,) = weigh(data).parts
    assert spelled_out(data, [part], 9) == {"text": part.plain + 3 * 54}
    assert spelled_out(data, [part], 1) == {}
    assert spelled_out(data, [replace(part, entries=4)], 9) == {}
    assert spelled_out(data, [replace(part, codec=3)], 9) == {}


def test_texts_coded_by_their_differences_are_refused() -> None:
    how = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    with pytest.raises(CorruptError, match="column text: texts coded by their differences"):
        parse_table(file(mixed().select(["text"]), **how), "t")


def test_columns_nested_deep_are_refused() -> None:
    kind = pa.int32()
    for _ in range(20):
        kind = pa.list_(kind)
    with pytest.raises(CorruptError, match="nested more than 16 deep"):
        parse_table(file(pa.table({"x": pa.array([], kind)})), "t")


def test_a_footer_of_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "VALUES", 1000)
    table = pa.table({f"c{i}": [1] for i in range(100)})
    with pytest.raises(CorruptError, match="its structure is too large"):
        parse_table(file(table), "t")


def test_a_column_of_many_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PAGES", 20)
    data = file(mixed().select(["small"]), data_page_size=1, write_batch_size=1, use_dictionary=False)
    with pytest.raises(CorruptError, match="has more than 20 pages"):
        parse_table(data, "t")


def test_a_length_of_the_footer_beyond_the_file_is_refused() -> None:
    data = file(mixed())
    with pytest.raises(CorruptError, match="its footer is longer than the file"):
        parse_table(data[:-8] + (1 << 30).to_bytes(4, "little") + b"PAR1", "t")


def test_a_page_that_says_more_values_than_the_footer_is_refused() -> None:
    data = file(pa.table({"n": pa.array(range(12), pa.int64())}), compression="none", use_dictionary=False)
    said = set()
    for position in range(len(data)):
        if data[position] == 24:  # Thrift's 12
            try:
                weigh(data[:position] + b"\x7e" + data[position + 1 :])
            except ValueError as error:
                said.add(str(error))
    assert "column n says 12 values, its pages hold 63" in said
    assert "column n has 63 values in 12 rows" in said
