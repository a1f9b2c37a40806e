"""The Parquet tables of a compiled dataset: their columns, and one way to write and read them."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oxcart.manifests.columns import ARRAYS
from oxcart.manifests.parquet import Weight, spelled_out, weigh
from oxcart.shards.errors import CorruptError
from oxcart.shards.store import Store

ROW_GROUP = 65_536

FILE_BYTES = 512 << 20
"""Size limit of the file of a table, in bytes."""
SMALL_BYTES, ROW_BYTES = 32 << 20, 16 << 10
"""Bytes that a table may take in memory: a fixed number, plus a number per row, up to `LARGE_BYTES`."""
FREE_ROWS = 4096
"""Rows that a table may have even if its file is smaller; beyond it, a file needs a byte per row."""
LARGE_BYTES, FOLD = 512 << 20, 8
"""Upper limit of a table's memory: this many bytes or times its file's size, whichever is larger."""
CHUNKS_BYTES = 1 << 20
"""Bytes that a chunk table may take in memory besides those for its episodes and chunks."""
CHUNKS_LARGE, CHUNKS_FOLD = 256 << 20, 4
"""The same upper limit for a chunk table, lower because decoding it takes more than twice as much."""

EPISODES = "episodes.parquet"
REJECTED = "rejected.parquet"
VALUES = "values.parquet"
ATTRIBUTION = "attribution.parquet"
"""Name of the table of authors and licences, in datasets whose source states them."""

TABLE_FILE = re.compile(r"(episodes|rejected|values|attribution)(-[0-9a-f]{16})?\.parquet")
"""File names of tables. A table that replaces another has its digest in its name, so that no table is ever
overwritten while a manifest names it."""


def later_file(name: str, digest: str) -> str:
    """File name of a table that replaces one of an earlier manifest."""
    return f"{name.removesuffix('.parquet')}-{digest[:16]}.parquet"


_SOURCE = [
    ("source_split", pa.string()),
    ("source_file", pa.string()),
    ("source_record", pa.int32()),
    ("source_offset", pa.int64()),
    ("source_length", pa.int64()),
]

REJECTED_SCHEMA = pa.schema([("key", pa.string()), *_SOURCE, ("reason", pa.string())])

VALUES_SCHEMA = pa.schema(
    [
        ("array", pa.string()),
        ("column", pa.int32()),
        ("least", pa.float32()),
        ("greatest", pa.float32()),
        ("count", pa.int64()),
    ]
)

ATTRIBUTION_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("video", pa.string()),
        ("same_as", pa.string()),
        ("title", pa.string()),
        ("channel", pa.string()),
        ("channel_id", pa.string()),
        ("licence", pa.string()),
        ("url", pa.string()),
        ("uploaded", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
    ]
)

CHUNKS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("camera", pa.string()),
        ("digests", pa.list_(pa.uint64())),
        ("sizes", pa.list_(pa.uint32())),
        ("frames", pa.list_(pa.uint32())),
    ]
)


_ARRAY = ("offset", "digest", "start", "stop")
"""Parts of the columns of an array, which are null together: where an episode lacks the array."""
OPTIONAL = {"environment", "session", "control_rate", "sizes", "frames"}
OPTIONAL |= {"same_as", "channel", "channel_id", "url", "uploaded"}
OPTIONAL |= {f"{array}.{part}" for array in ARRAYS for part in _ARRAY} | {"success", "terminal"}
"""Columns in which a value may be null."""

MAX_MEMBER = 8 << 30
"""Maximum uncompressed bytes of one camera of an episode, which must fit one tar member."""

_LEAST = {"steps": 1, "height": 1, "width": 1, "count": 1}
_LEAST |= {"offset": 0, "bytes": 0, "start": 0, "stop": 0, "column": 0}
"""Last part of a column's name -> its smallest value."""
MOST = 1 << 60
"""Exclusive upper bound of counts, offsets and sizes, so that their sums fit into 64 bits."""


def episodes_schema(cameras: Sequence[str]) -> pa.Schema:
    """Columns of `episodes.parquet`; three for each camera."""
    per_camera = [
        (f"{camera}.{what}", kind)
        for camera in cameras
        for what, kind in (("offset", pa.int64()), ("height", pa.int32()), ("width", pa.int32()))
    ]
    return pa.schema(
        [
            ("key", pa.string()),
            ("split", pa.string()),
            ("shard", pa.string()),
            ("environment", pa.string()),
            ("environment_known", pa.string()),
            ("session", pa.string()),
            ("instruction", pa.string()),
            ("steps", pa.int32()),
            ("control_rate", pa.float32()),
            ("success", pa.bool_()),
            ("terminal", pa.bool_()),
            *_SOURCE,
            ("source_digest", pa.uint64()),
            ("digest", pa.string()),
            ("offset", pa.int64()),
            ("bytes", pa.int64()),
            ("json.digest", pa.uint64()),
            ("action.offset", pa.int64()),
            ("action.digest", pa.uint64()),
            ("action.start", pa.int32()),
            ("action.stop", pa.int32()),
            ("state.offset", pa.int64()),
            ("state.digest", pa.uint64()),
            ("reward.offset", pa.int64()),
            ("reward.digest", pa.uint64()),
            *per_camera,
        ]
    )


def table_bytes(table: pa.Table, plain: str | None = None) -> bytes:
    """Encode a table as Parquet; the same table gives the same bytes.

    Args:
        table: the table.
        plain: a column of values that hardly repeat, which are read in half the time without a dictionary.

    A table is not compressed if it would become smaller than `parse_table` accepts, as `values.parquet` would
    with hundreds of columns that have the same few values.
    """
    coded = [name for name in table.column_names if name != plain]
    for compression in ("zstd", "none"):
        buffer = io.BytesIO()
        pq.write_table(
            table,
            buffer,
            row_group_size=ROW_GROUP,
            compression=compression,
            write_statistics=True,
            use_dictionary=True if plain is None else coded,
        )
        if table.num_rows <= FREE_ROWS + buffer.tell():
            break
    return buffer.getvalue()


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as Python values, converted a thousand at a time since they take ten times Arrow's memory."""
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def read_table(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, whole or some columns of it.

    Raises:
        CorruptError: the file is not Parquet, or lacks a column.
        StoreError: the file cannot be read.
    """
    return parse_table(store.read(name, FILE_BYTES), name, columns)


def parse_table(
    data: bytes,
    name: str,
    columns: Sequence[str] | None = None,
    coded: Sequence[str] = (),
    most: int | None = None,
    fold: int = FOLD,
) -> pa.Table:
    """Parse the table in `data`, which came from the object `name`.

    It may take only as much memory as its rows and its file justify, and is refused before it takes more.

    Args:
        data: the file.
        name: name of the object, for errors.
        columns: names of the columns to read; None is all.
        coded: columns that stay dictionaries.
        most: limit of its bytes in memory, if its file does not justify less; None sets no limit.
        fold: maximum ratio of memory to the size of the file, for large files.

    Raises:
        CorruptError: the data is not Parquet, lacks a column, or would take too much memory.
    """
    large = max(LARGE_BYTES, fold * len(data))
    most = large if most is None else min(most, large)
    try:
        weight = weigh(data, columns)
        if weight.rows > FREE_ROWS + len(data):
            raise ValueError(f"it has {weight.rows:,} rows in {len(data):,} bytes, which cannot all differ")
        if weight.nbytes > most:
            raise ValueError(_too_large(weight.nbytes, most))
        table = _read(data, columns, _as_dictionaries(data, weight, coded, most))
        table.validate(full=True)  # Parquet does not say whether texts are UTF-8
        return _spelled_out(table, coded, most)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptError(f"{name}: not a readable Parquet table: {_first_line(error)}") from error


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """The numbers of a column without nulls, read-only; a view of its memory if it is in one piece.

    `to_numpy` would import pandas where that is installed, which takes longer than to read a million rows.
    """
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [np.from_dlpack(piece) for piece in pieces]
    found: npt.NDArray[Any] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return found


def as_arrow(values: npt.NDArray[Any]) -> pa.Array:
    """Numbers as Arrow's, in the same memory; `pa.array` would import pandas too."""
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, data])


def _read(data: bytes, columns: Sequence[str] | None, dictionaries: list[str]) -> pa.Table:
    """Read columns of a file, those in `dictionaries` as dictionaries.

    Raises:
        ValueError: the file lacks a column, or has two of the same name.
    """
    # `pq.read_table` would load Arrow's datasets first, and plan and collect a scan: longer than it reads.
    file = pq.ParquetFile(pa.BufferReader(_own(data)), read_dictionary=dictionaries or None, pre_buffer=False)
    table = file.read(list(columns) if columns is not None else None)
    counts = Counter(table.column_names)
    names = list(counts) if columns is None else list(columns)
    for name in names:
        if counts[name] != 1:
            raise ValueError(f"it has {counts[name]} columns {name!r}, expected one")
    return table.select(names)


def _as_dictionaries(data: bytes, weight: Weight, coded: Sequence[str], most: int) -> list[str]:
    """Paths of the columns to read as dictionaries: those in `coded`, and any that might be too large if not.

    Other columns are read directly: reading a dictionary and expanding it would take twice as long.
    """
    parts = [part for part in weight.parts if part.path.partition(".")[0] not in coded]
    left = most - weight.nbytes
    plain = set()
    sizes = spelled_out(data, parts, FREE_ROWS + len(data))
    for path, nbytes in sorted(sizes.items(), key=lambda item: item[1]):
        left -= nbytes
        if left >= 0:
            plain.add(path)
    return [path for path in weight.texts if path not in plain]


def _spelled_out(table: pa.Table, coded: Sequence[str], most: int) -> pa.Table:
    """Expand dictionaries of texts to texts, except in the columns `coded`.

    Raises:
        ValueError: it would be larger than `most`.
    """
    plain = [i for i, field in enumerate(table.schema) if field.name not in coded]
    total = table.nbytes
    for i in plain:
        for chunk in table.column(i).chunks:
            while pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
                chunk = chunk.flatten()
            if pa.types.is_dictionary(chunk.type):
                lengths = pc.binary_length(chunk.dictionary)
                total += pc.sum(pc.cast(lengths.take(chunk.indices), pa.int64())).as_py() or 0
    if total > most:
        raise ValueError(_too_large(total, most))
    for i in plain:
        field = table.schema.field(i)
        if (kind := _kind(field.type)) != field.type:
            table = table.set_column(i, field.with_type(kind), table.column(i).cast(kind))
    return table


def _too_large(nbytes: int, most: int) -> str:
    return f"it would take {nbytes:,} bytes, more than the {most:,} that a table of its size may take"


def conforming(
    table: pa.Table, schema: pa.Schema, name: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Check that a table has the columns of the format with values that a compile writes, and return it.

    Callers may rely on it: no number in a forged or foreign table costs memory or time.

    Args:
        table: the result of `parse_table`.
        schema: schema of the whole table.
        name: name of the object that the table came from.
        columns: names of the columns that were read; None is all.

    Raises:
        CorruptError: a column is missing, is one too many, lacks values, or holds an impossible number.
    """
    wanted = schema.names if columns is None else columns
    kinds = [_kind(table.schema.field(one).type) for one in wanted if one in table.column_names]
    if table.num_columns != len(wanted) or kinds != [schema.field(one).type for one in wanted]:
        raise CorruptError(f"{name}: its columns are not those of the format")
    if columns is None and table.column_names != schema.names:
        raise CorruptError(f"{name}: its columns are not those of the format")
    for one in wanted:
        column = table[one]
        lists = pa.types.is_list(column.type)
        if (column.null_count and one not in OPTIONAL) or (lists and pc.list_flatten(column).null_count):
            raise CorruptError(f"{name}: column {one} lacks values")
        least = _LEAST.get(one.rpartition(".")[2])
        if least is None or not table.num_rows:
            continue
        found = pc.min_max(column).as_py()
        if found["min"] is not None and not least <= found["min"] <= found["max"] < MOST:
            raise CorruptError(
                f"{name}: column {one} holds {found['min']} to {found['max']}, an impossible number"
            )
    if {"steps", "action.start", "action.stop"} <= set(wanted):
        start, stop, steps = (table[one] for one in ("action.start", "action.stop", "steps"))
        ordered = pc.and_(pc.less_equal(start, stop), pc.less_equal(stop, steps))
        if pc.any(pc.invert(ordered)).as_py():
            raise CorruptError(f"{name}: actions of an episode begin or end where it has no steps")
    for array in ARRAYS:
        parts = [one for one in _ARRAY if f"{array}.{one}" in wanted]
        lacks = [table[f"{array}.{one}"].is_null() for one in parts]
        if any(not one.equals(lacks[0]) for one in lacks):
            named = ", ".join(f"{array}.{one}" for one in parts)
            raise CorruptError(f"{name}: columns {named} of an episode are null apart, expected all or none")
    for camera in (one.removesuffix(".height") for one in wanted if one.endswith(".height")):
        sides = [f"{camera}.height", f"{camera}.width"]
        if table.num_rows and {"steps", *sides} <= set(wanted):
            factors = [table[one] for one in ("steps", *sides)]
            if 3 * math.prod(pc.max(one).as_py() for one in factors) < MAX_MEMBER:
                continue
            steps, height, width = (numbers(one).astype(np.float64) for one in factors)
            if 3 * (steps * height * width).max() >= MAX_MEMBER:
                raise CorruptError(f"{name}: frames of camera {camera} are more than an episode can have")
    return table


def _kind(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, whether they are coded as a dictionary or not."""
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_kind(kind.value_type)))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _own(data: bytes) -> pa.Buffer:
    """Copy the bytes to memory that Arrow owns.

    Arrow's threads may hold them a moment longer than the call. To release bytes owned by Python they would
    need the interpreter; if it is being torn down at that moment, the process aborts.
    """
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return buffer


def _first_line(error: Exception) -> Any:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
